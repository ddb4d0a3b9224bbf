"""Our tokenizers as the files that transformers, vLLM and llama.cpp's converter read, with equal ids."""

import json
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any

from lit_llm.data.bpe import END_OF_TEXT, FASTER, GPT2_PATTERN, PATTERN, PROBE, TiktokenBased, byte_alphabet
from lit_llm.data.new_tokens import WithNewTokens
from lit_llm.data.sentence_pieces import SPACE, SentencePieces
from lit_llm.data.tokenizer import Bytes, Characters, Tokenizer, well_formed
from lit_llm.data.tokenizer_json import TokenizerJSON, vocabulary

# The rules as other programs know them: what stands for them here is faster in tiktoken, and cuts the same words.
PLAIN = {"gpt2": GPT2_PATTERN, "cl100k_base": PATTERN}
AS_PUBLISHED = {faster: pattern for pattern, faster in FASTER.items()}
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
AS_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def tokenizer_files(tokenizer: Tokenizer, block_size: int) -> dict[str, str]:
    """The files of a tokenizer, their contents by their names.

    Args:
        tokenizer: One of ours.
        block_size: Longest input of the model in tokens.

    Raises:
        ValueError: If the tokenizer is of a kind that the `tokenizers` library cannot run with equal ids.
    """
    data = _content(tokenizer)
    names = {i: name for name, i in vocabulary(data).items()}
    begin, end = tokenizer.begin_of_text, tokenizer.end_of_text
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": begin is not None,
    }
    # A generation without a prompt starts with it, even where no text begins with it.
    first = end if begin is None else begin
    settings |= {} if first is None else {"bos_token": names[first]}
    settings |= {} if end is None else {"eos_token": names[end]}
    files = {}
    if tokenizer.chat_template is not None:
        settings["chat_template"] = files["chat_template.jinja"] = tokenizer.chat_template
    data["post_processor"] = None if begin is None else _beginning(names[begin], begin)
    return {
        "tokenizer.json": json.dumps(data, ensure_ascii=False, indent=1),
        "tokenizer_config.json": json.dumps(settings, ensure_ascii=False, indent=2),
        **files,
    }


def _content(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer does to a text is its `encode`: that of a subclass may be another one."""
    for kind, write in WRITERS.items():
        if type(tokenizer).encode is kind.encode:
            return write(tokenizer)
    raise ValueError(
        f"the tokenizer {type(tokenizer).__qualname__} cannot be said as a tokenizer.json of the tokenizers library; "
        "--format lit keeps it as it is"
    )


def _bytes(tokenizer: Bytes) -> dict[str, Any]:
    vocab = {char: byte for byte, char in enumerate(byte_alphabet())}
    return _file(_bpe(vocab, []), AS_BYTES, AS_BYTES, {END_OF_TEXT: tokenizer.end_of_text})


def _characters(tokenizer: Characters) -> dict[str, Any]:
    if well_formed(tokenizer.characters) != tokenizer.characters:
        raise ValueError("the tokenizer Characters knows a lone surrogate, which no tokenizer.json can hold")
    vocab = {char: i for i, char in enumerate(tokenizer.characters)}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": ""}  # as here, a stranger is an error
    end = {} if tokenizer.end_of_text is None else {END_OF_TEXT: tokenizer.end_of_text}
    return _file(model, _split(r"[\s\S]"), {"type": "Fuse"}, end)


def _file(model: dict[str, Any], pre_tokenizer: Any, decoder: Any, special: dict[str, int]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **FLAGS, "special": True} for name, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _bpe(vocab: dict[str, int], merges: list[tuple[str, str]], **settings: Any) -> dict[str, Any]:
    default = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    ways = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    return {"type": "BPE", **default, **ways, **settings, "vocab": vocab, "merges": merges}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _beginning(name: str, i: int) -> dict[str, Any]:
    """The rule that puts a token before each text."""
    first, one, two = ({"SpecialToken": {"id": name, "type_id": 0}}, *_sequences())
    return {
        "type": "TemplateProcessing",
        "single": [first, one],
        "pair": [first, one, first, two],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]}},
    }


def _sequences() -> Iterator[dict[str, Any]]:
    return ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")


def _byte_level(tokenizer: TiktokenBased) -> dict[str, Any]:
    encoding, alphabet = tokenizer.encoding, byte_alphabet()
    ranks = encoding._mergeable_ranks

    def name(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    merges = [(name(one), name(two)) for one, two in merges_of(ranks)]
    # tiktoken looks for a word as a whole before it merges anything.
    vocab = {name(token): i for token, i in ranks.items()} | encoding._special_tokens
    model = _bpe(vocab, merges, ignore_merges=True)
    pattern = PLAIN.get(encoding.name) or AS_PUBLISHED.get(encoding._pat_str) or _translated(encoding._pat_str)
    if pattern == GPT2_PATTERN:
        words: dict[str, Any] = {**AS_BYTES, "use_regex": True}  # which is GPT-2's rule
    else:
        words = {"type": "Sequence", "pretokenizers": [_split(pattern), AS_BYTES]}
    data = _file(model, words, AS_BYTES, encoding._special_tokens)
    if TokenizerJSON(json.dumps(data)).encode(PROBE).tolist() != encoding.encode_ordinary(PROBE):
        raise ValueError(
            f"the encoding '{encoding.name}' cuts text into words by the rule {encoding._pat_str!r}, which the "
            "tokenizers library understands in another way; --format lit keeps it as it is"
        )
    return data


def merges_of(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pairs that a byte-level BPE merges, in order: the last two parts of each token, merged by the ranks below.

    A token that is never merged, but found as a whole word, has none (Llama 3 has 678 such).
    """
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(one + two, rank) for one, two in pairwise(parts)]
            if (lowest := min(pairs)) >= rank:
                break
            i = pairs.index(lowest)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def _translated(pattern: str) -> str:
    """A pattern of tiktoken's regular expressions in those of the `tokenizers` library (Oniguruma).

    A possessive {1,3}+ is there another quantifier, and `$` the end of a line. None of these patterns needs to be
    possessive: what may follow a repeated class is not in it.
    """
    return re.sub(r"([+?*]|\{[\d,]+\})\+", r"\1", pattern).replace("$", r"\z")


def _sentence_pieces(tokenizer: SentencePieces) -> dict[str, Any]:
    """A sentencepiece model of the kind BPE, as Llama's are."""
    proto: Any = import_module("sentencepiece.sentencepiece_model_pb2")  # it has no types
    model = proto.ModelProto.FromString(tokenizer.content)
    rules, kind = model.normalizer_spec, model.trainer_spec.ModelType.Name(model.trainer_spec.model_type)
    if kind != "BPE" or rules.precompiled_charsmap:
        raise ValueError(
            f"the sentencepiece model is of the kind {kind} with the normalization '{rules.name}', and only BPE "
            "without one is written as a tokenizer.json; --format lit keeps it as it is"
        )
    ids, kinds = tokenizer.ids, {piece.piece: piece.Type.Name(piece.type) for piece in model.pieces}
    names = {kind: [name for name in kinds if kinds[name] == kind] for kind in set(kinds.values())}
    unknown = names.get("UNKNOWN", [None])[0]
    merges = list(_merges_by_score({piece.piece: piece.score for piece in model.pieces}, names["NORMAL"], ids))
    bpe = _bpe(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback="BYTE" in names)
    spaces = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    steps = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if rules.add_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    data = _file(bpe, None, {"type": "Sequence", "decoders": steps}, tokenizer.control)
    added = [{"id": ids[name], "content": name, **FLAGS, "special": False} for name in names.get("USER_DEFINED", [])]
    normalizers = {"type": "Sequence", "normalizers": list(_normalizers(rules))}
    return {**data, "added_tokens": data["added_tokens"] + added, "normalizer": normalizers}


def _merges_by_score(scores: dict[str, float], normal: list[str], ids: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every pair of pieces that makes a piece, the best first: so the library merges, whatever pair it is."""
    pieces = set(normal)
    for name in sorted(normal, key=lambda name: -scores[name]):
        pairs = [(name[:i], name[i:]) for i in range(1, len(name)) if name[:i] in pieces and name[i:] in pieces]
        yield from sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))


def _normalizers(rules: Any) -> Iterator[dict[str, Any]]:
    """What sentencepiece does to a text first."""
    if rules.remove_extra_whitespaces:
        yield {"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""}
        yield {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    if rules.add_dummy_prefix:
        yield {"type": "Prepend", "prepend": SPACE}
    yield {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def _with_new_tokens(tokenizer: WithNewTokens) -> dict[str, Any]:
    data = _content(tokenizer.base)
    added = [{"id": i, "content": name, **FLAGS, "special": True} for name, i in tokenizer.new_ids.items()]
    data["added_tokens"] = [*data["added_tokens"], *added]
    TokenizerJSON(json.dumps(data))  # refuses it where the library would give the new tokens other ids
    return data


WRITERS: dict[type[Tokenizer], Callable[[Any], dict[str, Any]]] = {
    TokenizerJSON: lambda tokenizer: json.loads(tokenizer.content),
    TiktokenBased: _byte_level,
    SentencePieces: _sentence_pieces,
    Bytes: _bytes,
    Characters: _characters,
    WithNewTokens: _with_new_tokens,
}
