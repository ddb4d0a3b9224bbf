"""Tables of texts and labels as files of any kind, and what is read of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lit_llm.data.rows import Access
from lit_llm.data.tables import Columns, Table, read_table

ROWS = [("ham", "see you, at six"), ("spam", 'WIN a "car" now'), ("ham", "naïve £5"), ("ham", "ok"), ("spam", "free")]


def read(path: Path | str, labelled: bool = True, columns: tuple[str, str] = ("text", "label"), **how: Any) -> Table:
    return read_table(str(path), Columns(*columns), Access(**how), labelled)


def pairs(table: Table) -> list[tuple]:
    return list(zip(table.labels, table.texts, strict=True))


def write(path: Path, rows: list[tuple] = ROWS) -> Path:
    """The rows as the kind of file that the name says."""
    if path.suffix == ".parquet":
        columns = {
            "label": [label for label, _ in rows],
            "n": list(range(len(rows))),
            "text": [text for _, text in rows],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif ".jsonl" in path.name:
        lines = "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows).encode()
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    elif path.suffix == ".csv":
        quoted = [(label, text.replace('"', '""')) for label, text in rows]
        path.write_text("label,text\n" + "".join(f'{label},"{text}"\n' for label, text in quoted), "utf-8")
    else:
        path.write_text("".join(f"{label}\t{text}\n" for label, text in rows), "utf-8")
    return path
