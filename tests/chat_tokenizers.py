"""Conversations, and tokenizers of all kinds that know the control tokens of chat templates."""

import json

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from lit_llm.data.bpe import GPT2_PATTERN, PATTERN
from lit_llm.data.prompts import TEMPLATES, Message
from lit_llm.data.ranks import Ranks
from lit_llm.data.tokenizer_json import TokenizerJSON

TEXT = (TEMPLATES / "alpaca.jinja").read_text("utf-8") * 2 + " the cat sat\n\non the mat  1984 naïve 日本\n\n" * 20
CONTROL = [
    *("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
]


def turns(*texts: str, system: str = "", **first: str) -> list[Message]:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    said[0] |= first
    return [{"role": "system", "content": system}, *said] if system else said


def byte_level(pattern: str) -> HuggingFaceTokenizer:
    tokenizer = HuggingFaceTokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=420, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def byte_fallback() -> HuggingFaceTokenizer:
    """As Llama 2: a space before each text, bytes for what has no piece."""
    tokenizer = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*CONTROL, *every_byte], show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(CONTROL)]
    return HuggingFaceTokenizer.from_str(json.dumps(content))


def metaspace() -> HuggingFaceTokenizer:
    """As Mistral: a space before the first word of a text alone."""
    tokenizer = HuggingFaceTokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=300, special_tokens=CONTROL, show_progress=False)
    )
    return tokenizer


def swallowing() -> HuggingFaceTokenizer:
    """As Phi-3: control tokens that swallow the white space after them."""
    data = json.loads(byte_level(GPT2_PATTERN).to_str())
    for token in data["added_tokens"]:
        token["rstrip"] = token["content"] in ("<|user|>", "<|assistant|>", "<|end|>")
        token["lstrip"] = token["content"] == "<|im_end|>"
    return HuggingFaceTokenizer.from_str(json.dumps(data))


KINDS = {
    "llama 3's words": (lambda: byte_level(PATTERN), Ranks),
    "gpt-2's words": (lambda: byte_level(GPT2_PATTERN), Ranks),
    "byte fallback": (byte_fallback, TokenizerJSON),
    "metaspace": (metaspace, TokenizerJSON),
    "swallowing": (swallowing, TokenizerJSON),
}
