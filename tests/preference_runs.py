"""What tests share that learn from pairs of answers: records, their data module, and a config."""

import json
from pathlib import Path
from typing import Any

from cli_runs import tiny_config, write_yaml

from lit_llm.data.preferences import Preferences
from lit_llm.data.tokenizer import Bytes

BLOCK = 41


def pairs(count: int = 14) -> list[dict[str, Any]]:
    """Answers of different lengths; the polite ones are chosen."""
    return [
        {
            "instruction": f"Say {i}.",
            "input": "now" * (i % 2),
            "chosen": f"{i}, " + "please" * (1 + i % 3),
            "rejected": f"no {i}" + "!" * (i % 4),
        }
        for i in range(count)
    ]


def write_pairs(folder: Path, rows: Any = None) -> Path:
    """The file of the records."""
    path = folder / "pairs.json"
    path.write_text(json.dumps(pairs() if rows is None else rows), "utf-8")
    return path


def tiny_pairs(folder: Path, rows: Any = None, **settings: Any) -> Preferences:
    source = str(write_pairs(folder, rows))
    defaults = {"tokenizer": Bytes(), "template": "plain", "block_size": BLOCK, "batch_size": 3, "val_fraction": 0.3}
    return Preferences(source, **{**defaults, **settings})


def write_preferences(folder: Path, rows: Any = None) -> Path:
    """The config of a tiny run and its records; its path."""
    config = tiny_config(folder)
    config["model"]["class_path"] = "lit_llm.modules.PreferenceTuning"
    config["data"] = {
        "class_path": "lit_llm.data.preferences.Preferences",
        "init_args": {
            "source": str(write_pairs(folder, rows)),
            "tokenizer": {"class_path": "lit_llm.data.tokenizer.Bytes"},
            "template": "plain",
            "block_size": BLOCK,
            "batch_size": 3,
            "val_fraction": 0.3,
        },
    }
    return write_yaml(folder / "preferences.yaml", config)
