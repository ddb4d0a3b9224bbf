"""lit-llm tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from lit_llm.data.sources import Reading, Source
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.usage import Parser

COMPARED = 4_000_000  # bytes of the corpus


def run(args: list[str]) -> int:
    """Train a byte-level BPE on a corpus, and say how well it compresses."""
    if args[1:2] not in (["train"], ["--help"], ["-h"]):
        raise ValueError(f"tokenizer has one action, 'train', not '{' '.join(args[1:2])}'")
    parser = Parser(
        prog="lit-llm tokenizer train",
        description="Train a byte-level BPE on your text. The tokenizer.json it writes is used by "
        "--data.tokenizer TokenizerFile --data.tokenizer.path PATH, and is a file of the tokenizers library.",
    )
    parser.add_argument(
        "--source", type=str | list[str], required=True, help="as data.source: a path, owner/name, stdlib"
    )
    parser.add_argument("--reading", type=Reading, default=Reading(), help="as data.reading")
    parser.add_argument("--vocab_size", type=int, default=4096, help="ids in all, special tokens included")
    parser.add_argument("--out", type=Path, default=Path("tokenizer.json"), help="where to write it")
    parser.add_argument("--special_tokens", type=list[str], default=[], help="control tokens beside <|endoftext|>")
    config = parser.instantiate(parser.parse_args(args[2:] if args[1] == "train" else args[1:]))

    from lit_llm.data.bpe import END_OF_TEXT, TokenizerFile, train_bpe

    special = list(dict.fromkeys([END_OF_TEXT, *config.special_tokens]))
    if config.vocab_size < 256 + len(special):
        raise ValueError(
            f"vocab_size {config.vocab_size} has no room for the 256 bytes and {len(special)} special tokens"
        )
    source = Source(config.source, config.reading)
    if not any(True for _ in _pieces(source)):
        raise ValueError(f"the corpus '{source}' holds no text")
    content = train_bpe(_pieces(source), config.vocab_size, special)
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write '{config.out}': {error.strerror}") from error
    tokenizer = TokenizerFile(str(config.out))
    if tokenizer.vocab_size < config.vocab_size:
        print(f"the text gives no more than {tokenizer.vocab_size} ids")
    print(f"{config.out}: {tokenizer.vocab_size} ids")
    _compare(source, {"this tokenizer": tokenizer})
    return 0


def _pieces(source: Source) -> Iterator[str]:
    return (piece for document in source for piece in document.pieces())


def _compare(source: Source, tokenizers: dict[str, Tokenizer]) -> None:
    """Print bytes per token on the first megabytes of the corpus, with GPT-2's beside it where it can be had."""
    from lit_llm.data.bpe import Tiktoken

    try:
        tokenizers["gpt2"] = Tiktoken("gpt2")
    except ValueError as error:
        print(f"gpt2             not compared: {error}")
    size, tokens = 0, dict.fromkeys(tokenizers, 0)
    for text in _pieces(source):
        size += len(text.encode())
        for name, tokenizer in tokenizers.items():
            tokens[name] += len(tokenizer.encode(text))
        if size > COMPARED:
            break
    for name, tokenizer in tokenizers.items():
        print(f"{name:16} {size / tokens[name]:.3f} bytes per token ({tokenizer.vocab_size} ids)")
