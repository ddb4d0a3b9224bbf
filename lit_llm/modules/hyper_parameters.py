"""What a checkpoint says of how its module was made: plain values, so that it loads without running code."""

import inspect
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

import lightning as L
import torch

from lit_llm.backbone.settings import plain

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"  # what makes parts of their settings (lightning 2.6)


class FromCheckpoint(L.LightningModule):
    """A module that its own checkpoints can make again, wherever what it was made of has a name."""

    # Of one made in Python, arguments that no plain values stand for: `load_from_checkpoint` asks for them.
    unsaid: tuple[str, ...] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which arguments are not in it."""
        super().on_save_checkpoint(checkpoint)
        if self.unsaid is not None:
            checkpoint["unsaid"] = list(self.unsaid)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """A module with the weights of a checkpoint, made of the same arguments.

        Args:
            checkpoint_path: Its file.
            args: As in Lightning.
            kwargs: As in Lightning; and arguments of the constructor, which count more than those of the checkpoint.

        Raises:
            ValueError: If it does not say all that the module was made of, and neither do the arguments.
        """
        if isinstance(checkpoint_path, str | Path) and Path(checkpoint_path).is_file():
            saved = torch.load(checkpoint_path, map_location="cpu", weights_only=kwargs.get("weights_only"))
            if missing := [name for name in saved.get("unsaid", []) if name not in kwargs]:
                raise ValueError(unsaid_sentence(checkpoint_path, missing))
        # Lightning would call a class that is given here.
        named = {name: plain(value) for name, value in kwargs.items() if isinstance(value, partial | type)}
        return super().load_from_checkpoint(checkpoint_path, *args, **{**kwargs, **named})


def unsaid_sentence(path: str | Path, names: list[str]) -> str:
    """What is told of a checkpoint that lacks arguments. names: those of the constructor."""
    given = ", ".join(f"{name}=..." for name in names)
    return (
        f"the checkpoint '{path}' does not say how its {' and '.join(names)} is built (made in Python, of a function "
        f"or class that cannot be imported by name); rebuild it there and use load_from_checkpoint(path, {given})"
    )


def save_settings(module: FromCheckpoint, frame: FrameType | None) -> None:
    """Keep the arguments of a module in its checkpoints, as plain values in the form of a config.

    Of one made in Python, what has no name is left out, and `unsaid` tells of it. The network itself is never looked
    at, for Lightning copies what it sees.

    Args:
        module: In the middle of its constructor.
        frame: That of the constructor, whose arguments are meant.
    """
    with warnings.catch_warnings():
        # Lightning's advice for a part made in Python, to ignore it, comes before it is replaced here.
        warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
        module.save_hyperparameters(ignore=["backbone"], frame=frame, logger=False)
        is_of_config = "_instantiator" in module.hparams
        if is_of_config:
            module.save_hyperparameters(frame=frame, logger=False)
    # Lightning adds what the command line links to modules of other classes.
    constructors = [vars(cls)["__init__"] for cls in type(module).__mro__ if "__init__" in vars(cls)]
    known = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    for name in [name for name in module.hparams if name not in known and not name.startswith("_")]:
        del module.hparams[name]
    if not is_of_config:
        assert frame is not None
        _save_named(module, {**module.hparams, "backbone": frame.f_locals["backbone"]})


def _save_named(module: FromCheckpoint, arguments: dict[str, Any]) -> None:
    """Keep the arguments of a module made in Python, as far as they have names."""
    said: dict[str, Any] = {"_instantiator": INSTANTIATOR}
    unsaid = []
    with suppress(ValueError):  # else Lightning takes the class that is asked
        said["_class_path"] = plain(type(module))["class_path"]
    for name, value in arguments.items():
        try:
            said[name] = plain(value)
        except ValueError:
            unsaid.append(name)
    module.unsaid = tuple(sorted(unsaid))
    module.hparams.clear()
    module.hparams.update(said)
    module._hparams_initial = type(module.hparams)(said)  # type: ignore[assignment,call-arg]
