"""Records of an assistant, and the data made of them."""

import json
from pathlib import Path
from typing import Any

from lit_llm.batch import IGNORE_INDEX
from lit_llm.data.instructions import Instructions
from lit_llm.data.tokenizer import Bytes

B, T = 3, 101
CONFIG = Path(__file__).parents[1] / "configs" / "instruct_alpaca.yaml"


def alpaca(count: int = 40, **fields: Any) -> list[dict[str, Any]]:
    return [{"instruction": f"Say {i}.", "input": "", "output": f"{i}{i}", **fields} for i in range(count)]


def write(folder: Path, rows: Any, name: str = "rows.json") -> str:
    (folder / name).write_text(json.dumps(rows), "utf-8")
    return str(folder / name)


def data(folder: Path, rows: Any = None, **settings: Any) -> Instructions:
    source = settings.pop("source", None) or write(folder, alpaca() if rows is None else rows)
    defaults = {"tokenizer": Bytes(), "template": "plain", "block_size": T, "batch_size": B, "val_fraction": 0.2}
    return Instructions(source, **{**defaults, **settings})


def learnt(served: Instructions, split: str = "train") -> list[str]:
    """What carries loss in each example, the token that ends it written as a dollar."""
    examples = served.prepared.examples[split]
    targets = [examples.example(number)[1] for number in range(len(examples))]
    return ["".join("$" if i == 256 else chr(i) for i in one[one != IGNORE_INDEX].tolist()) for one in targets]
