"""What tests of resumed runs share: a tiny run of each task, callbacks that cut it and watch it, and its curves."""

import json
import random
from pathlib import Path
from typing import Any

from cli_runs import events, tiny_config, write_text, write_yaml
from instruction_rows import alpaca
from preference_runs import pairs
from text_runs import WORDS

BYTES = {"class_path": "lit_llm.data.tokenizer.Bytes"}
EPOCHS = 3
OFTEN = "{class_path: lit_llm.training.checkpoints.LastCheckpoint, init_args: {every_n_train_steps: 1}}"


def task(folder: Path, name: str) -> dict[str, Any]:
    """The model and the data of a task: its class names, and about twelve batches an epoch."""
    data: dict[str, Any] = {"tokenizer": BYTES, "val_fraction": 0.3, "batch_size": 2}
    if name == "LanguageModeling":
        source, kind = write_text(folder / "text.txt", lines=5), "pretraining.Pretraining"
        data |= {"block_size": 7, "cache_dir": str(folder / "cache")}
    elif name == "Classification":
        choose, kind = random.Random(0), "text_classification.TextClassification"
        rows = [
            {"text": f"{' '.join(choose.choices(WORDS[k], k=3))} {i}", "label": k} for i in range(17) for k in WORDS
        ]
        source = folder / "texts.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        data |= {"block_size": 21, "test_fraction": 0.0}
    else:
        is_pair, source = name == "PreferenceTuning", folder / "rows.json"
        kind = "preferences.Preferences" if is_pair else "instructions.Instructions"
        source.write_text(json.dumps(pairs(30) if is_pair else alpaca(140)), "utf-8")
        data |= {"block_size": 41, "template": "plain"}
    return {
        "model": {"class_path": f"lit_llm.modules.{name}"},
        "data": {"class_path": f"lit_llm.data.{kind}", "init_args": {"source": str(source), **data}},
    }


TASKS = ("LanguageModeling", "Classification", "InstructionTuning", "PreferenceTuning")
# Each two settings of any two of these meet at least once: accumulation, workers, freezing, early stopping, warm-up.
MIXES = [
    (1, 0, None, False, "given"),
    (3, 2, None, True, "estimated"),
    (1, 2, "step", False, "estimated"),
    (3, 0, "step", True, "given"),
    (1, 0, "epoch", True, "estimated"),
    (3, 2, "epoch", False, "given"),
]


def write_config(folder: Path, name: str, unit: str, mix: tuple) -> Path:
    """A run of a task over about three epochs, in which something drops out at random."""
    accumulate, workers, freezing, stops, warmup = mix
    config, own = tiny_config(folder), task(folder, name)
    model = config["model"]["init_args"]
    model["backbone"]["init_args"]["block"] = {
        "class_path": "lit_llm.backbone.gpt.Block",
        "init_args": {"dropout": 0.3},
    }
    if freezing:
        model |= {"trainable": {0: "head", {"step": 5, "epoch": 1}[freezing]: "all"}, "unfreeze_by": freezing}
    length = {"max_steps": 30} if warmup == "given" else {}
    model["lr_scheduler"] = {
        "class_path": "lit_llm.training.optim.WarmupCosine",
        "init_args": {"warmup_steps": 3, **length},
    }
    trainer = config["trainer"] | {"accumulate_grad_batches": accumulate}
    if unit == "epochs":
        trainer |= {"max_epochs": EPOCHS, "max_steps": -1, "check_val_every_n_epoch": 1}
        trainer["val_check_interval"] = 0.4 if workers else 1.0
    else:
        trainer |= {"max_steps": 30 // accumulate, "val_check_interval": 5}
    if stops:  # the loss falls, and is to rise: each validation is one without success
        patience = 2 if trainer["val_check_interval"] == 1.0 else 4
        stopping = {"monitor": "val/loss", "mode": "max", "patience": patience}
        trainer["callbacks"].append({"class_path": "EarlyStopping", "init_args": stopping})
    if name != "Classification":
        own["data"]["init_args"]["num_workers"] = workers
    own["model"]["init_args"] = model
    return write_yaml(folder / "run.yaml", config | own | {"trainer": trainer})


def batches(run: Path) -> list[str]:
    return (run / "batches.txt").read_text().splitlines()


def curves(runs: list[Path]) -> dict[str, dict[int, float]]:
    """What the runs have logged, by name and step; of a step that two have, what the later one says."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        logged = events(run)
        for tag in logged.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in logged.Scalars(tag)})
    return found
