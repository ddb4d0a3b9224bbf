"""Tiny tokenizers of every kind, made by the `tokenizers` library, and texts in many scripts for them."""

import json
import random
import re
from collections.abc import Callable

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

TEXT = "the cat sat on the mat; they'll see 2,048 cats.\n\n  Don't the cats' mats fit?\r\n\tnaïve 日本 🙂 " * 3
CONTROL = ["<unk>", "<s>", "</s>"]
AROUND = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])


def bpe_with_byte_fallback() -> HuggingFaceTokenizer:
    """As Llama 2: U+2581 for a space, one before each text, bytes for strangers."""
    tokenizer = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    replaced, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replaced, decoders.ByteFallback(), decoders.Fuse(), strip])
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    special = [*CONTROL, *every_byte]
    tokenizer.train_from_iterator(
        [TEXT[:60]], trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False)
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(CONTROL)]  # bytes are pieces
    return HuggingFaceTokenizer.from_str(json.dumps(content))


def unigram() -> HuggingFaceTokenizer:
    """As T5 and XLM-R; a control token is a piece with the best score."""
    tokenizer = HuggingFaceTokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=CONTROL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([TEXT, "<s> </s>"], trainer)
    return tokenizer


def words() -> HuggingFaceTokenizer:
    """A word is found in the vocabulary as a whole, a control token as well."""
    tokenizer = HuggingFaceTokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=CONTROL, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def byte_level(change: Callable[[HuggingFaceTokenizer], None] = lambda tokenizer: None) -> HuggingFaceTokenizer:
    tokenizer = HuggingFaceTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    change(tokenizer)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def composed(tokenizer: HuggingFaceTokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()


def byte_level_with_words() -> HuggingFaceTokenizer:
    """As Pythia: added tokens that are text."""
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("   ", normalized=False), AddedToken("日本", normalized=False)])
    return tokenizer


KINDS: dict[str, Callable[[], HuggingFaceTokenizer]] = {
    "byte level": byte_level,
    "byte level, composed": lambda: byte_level(composed),
    "byte level with words": byte_level_with_words,
    "byte fallback": bpe_with_byte_fallback,
    "unigram": unigram,
    "words": words,
}


SCRIPTS = [
    "The quick brown fox jumps over the lazy dog; they'll see 2,048 cats!",
    "Größe, façade, naïve, Łódź, ﬁ, Ⅷ: “quotes” …",
    "Съешь же ещё этих мягких французских булок",
    "日本語の文章、中文句子。한국어 문장",
    "עִבְרִית עברית",
    "العربية جميلة ١٢٣",
    "हिन्दी और தமிழ்",
    "ไทยไม่มีช่องว่าง",
    "🙂🚀👩‍🚀🏳️‍🌈👍🏽 e\u0301",
    "def f(x):\n\treturn x**2  # comment\r\n\n   ",
]


def hundred_strings() -> list[str]:
    """Ten scripts, and mixtures of pieces of them in which white space stands anywhere."""
    draw = random.Random(0)
    words = [word for line in SCRIPTS for word in re.findall(r"\s+|\S{1,5}", line)]
    mixed = ["".join(draw.choice([*words, " ", "\n"]) for _ in range(draw.randrange(1, 20))) for _ in range(88)]
    return [*SCRIPTS, "", " ", *mixed]


STRINGS = hundred_strings()
