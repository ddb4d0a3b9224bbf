"""What tests share that build a model and its data in Python: tiny ones, and a Trainer that writes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cli_runs import write_text
from lightning import Callback, Trainer

from lit_llm.backbone import GPT
from lit_llm.data.pretraining import Pretraining
from lit_llm.data.tokenizer import Bytes
from lit_llm.modules import LanguageModeling

B, T, H, C, V, LAYERS = 5, 7, 4, 24, 257, 1  # V: that of Bytes


def tiny_backbone(scale: float = 1.0, **settings: Any) -> GPT:
    """The same weights each time; a larger scale makes the predictions of different tokens differ more."""
    torch.manual_seed(0)
    backbone = GPT(**{"vocab_size": V, "block_size": T, "n_layer": LAYERS, "n_head": H, "n_embd": C, **settings})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(scale)
    return backbone


def tiny_module(**settings: Any) -> LanguageModeling:
    return LanguageModeling(**{"backbone": tiny_backbone(), **settings})


def tiny_data(folder: Path, **settings: Any) -> Pretraining:
    """A text of 8 lines in windows of T; three batches of B held out, the last one ragged."""
    source = folder / "text.txt"
    if not source.exists():
        write_text(source, lines=8)
    defaults = {"source": str(source), "tokenizer": Bytes(), "block_size": T, "batch_size": B, "val_fraction": 0.26}
    return Pretraining(**{**defaults, "cache_dir": str(folder / "cache"), **settings})


def trainer(**settings: Any) -> Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    steps = {"max_epochs": -1, "max_steps": 3, "log_every_n_steps": 1, "num_sanity_val_steps": 0}
    return Trainer(**{"accelerator": "cpu", **dict.fromkeys(quiet, False), **steps, **settings})


class Call(Callback):
    """Calls a function with the trainer, the module and whatever else a hook is given."""

    def __init__(self, hook: str, function: Callable[..., None]) -> None:
        setattr(self, hook, function)
