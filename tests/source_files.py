"""Files of texts, and the texts that a source reads in them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lit_llm.data.sources import Reading, Source

TEXTS = ["the first\r\ntext", "naïve 日本 🙂", "a\0b\tc"]


def texts(source: object, **reading: Any) -> list[str]:
    names = [str(name) for name in source] if isinstance(source, list) else str(source)
    return ["".join(document.pieces()) for document in Source(names, Reading(**reading))]


def write(path: Path, rows: list[str], field: str = "text") -> Path:
    """A file of the kind that its name says, with a text in each row, or all in one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"n": 7, field: row}) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"n": [7] * len(rows), field: rows}), path)
    elif path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines))
    else:
        path.write_bytes(lines if path.suffix == ".jsonl" else "".join(rows).encode())
    return path
