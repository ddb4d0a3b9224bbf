"""Small corpora of token files."""

import json
from pathlib import Path

from lit_llm.data.sources import Reading, Source
from lit_llm.data.tokens import Corpus

TEXTS = ["the cat sat", "on a naïve mat", "and saw 🙂", "big red dogs", "run home", "fast"]
FILES = {"train.bin", "val.bin", "test.bin", "meta.json", "tokenizer.json"}


def source(folder: Path, texts: list[str] = TEXTS) -> Source:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Source(str(path), Reading())


def contents(corpus: Corpus) -> dict[str, list[int]]:
    return {split: corpus.tokens(split).tolist() for split in ("train", "val", "test")}
