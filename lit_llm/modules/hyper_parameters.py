"""What a checkpoint says of how its module was made: plain values, so that it loads without running code."""

import inspect
import warnings
from types import FrameType
from typing import Any

import lightning as L


def save_settings(module: L.LightningModule, frame: FrameType | None) -> None:
    """Keep the arguments of a module in its checkpoints.

    Of a module that a config has built, all of them are plain values. Of one made in Python, objects are left out,
    which `load_from_checkpoint` then wants again. The network is never looked at, for Lightning copies what it sees.

    Args:
        module: In the middle of its constructor.
        frame: That of the constructor, whose arguments are meant.
    """
    with warnings.catch_warnings():
        # Lightning's advice for a part made in Python, to ignore it, comes before it is left out here.
        warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
        module.save_hyperparameters(ignore=["backbone"], frame=frame, logger=False)
        is_of_config = "_instantiator" in module.hparams
        objects = [] if is_of_config else ["backbone", *(k for k, v in module.hparams.items() if not _is_plain(v))]
        module.save_hyperparameters(ignore=objects, frame=frame, logger=False)
    # Lightning adds what the command line links to modules of other classes.
    constructors = [vars(cls)["__init__"] for cls in type(module).__mro__ if "__init__" in vars(cls)]
    known = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    for name in [name for name in module.hparams if name not in known and not name.startswith("_")]:
        del module.hparams[name]


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, int | float | str | None)
