"""lit-llm tokenizer."""

from pathlib import Path

from lit_llm.usage import Parser


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
        "--source", type=str | list[str], required=True, help="as data.source: a path, a hub id, stdlib"
    )
    parser.add_argument("--vocab_size", type=int, default=4096, help="ids in all, special tokens included")
    parser.add_argument("--out", type=Path, default=Path("tokenizer.json"), help="where to write it")
    parser.add_argument("--special_tokens", type=list[str], default=[], help="control tokens beside <|endoftext|>")
    parser.add_argument("--text_field", default="text", help="field that holds the text, where there are fields")
    config = parser.parse_args([arg for arg in args[1:] if arg != "train"])

    from lit_llm.data.bpe import END_OF_TEXT, TokenizerFile, train_bpe
    from lit_llm.data.sources import Reading, Source

    special = [END_OF_TEXT, *config.special_tokens]
    if config.vocab_size < 256 + len(special):
        raise ValueError(
            f"vocab_size {config.vocab_size} has no room for the 256 bytes and {len(special)} special tokens"
        )
    source = Source(config.source, Reading(text_field=config.text_field))
    content = train_bpe((piece for document in source for piece in document.pieces()), config.vocab_size, special)
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


def _compare(source: object, tokenizers: dict) -> None:
    """Print bytes per token on the first megabytes of the corpus, with GPT-2's beside it where it can be had."""
    from itertools import islice

    from lit_llm.data.bpe import Tiktoken

    try:
        tokenizers["gpt2"] = Tiktoken("gpt2")
    except ValueError as error:
        print(f"gpt2             not compared: {error}")
    texts = list(islice((piece for document in source for piece in document.pieces()), 64))  # type: ignore[attr-defined]
    size = sum(len(text.encode("utf-8", errors="replace")) for text in texts)
    for name, tokenizer in tokenizers.items():
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        print(f"{name:16} {size / max(tokens, 1):.3f} bytes per token ({tokenizer.vocab_size} ids)")
