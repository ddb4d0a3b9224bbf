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
    kind, records = path.name.lower().removesuffix(".gz"), [{"n": 7, field: row} for row in rows]
    if kind.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"n": [7] * len(rows), field: rows}), path)
        return path
    if kind.endswith(".json"):
        content = json.dumps(records, indent=1)
    elif kind.endswith((".jsonl", ".ndjson")):
        content = "".join(json.dumps(record) + "\n" for record in records)
    else:
        content = "".join(rows)
    path.write_bytes(gzip.compress(content.encode()) if path.name.lower().endswith(".gz") else content.encode())
    return path
