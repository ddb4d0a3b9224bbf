"""The grid of a sweep: named variants of a run, and axes that multiply them."""

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_llm.config_files import check_config

PARTS = ("variants", "axes")
NAME = re.compile(r"[\w.=,+-]+")
BY_THE_SWEEP = ("seed_everything", "ckpt_path", "trainer.logger", "config")  # the last: inside an axis


@dataclass(frozen=True)
class Variant:
    """One point of a grid.

    Args:
        name: Names the folder of its runs.
        options: Of fit, those of overlays first.
    """

    name: str
    options: tuple[str, ...]


def read_grid(path: Path) -> list[Variant]:
    """The variants of a file of this form; each is combined with all of the axes, and either part may be missing.

    ```yaml
    variants:
      plain: {}
      muon: {config: muon.yaml}  # overlays, relative to this file: one or a list
      wide: {model.backbone.n_embd: 256}
    axes:
      model.optimizer.lr: [1.0e-3, 3.0e-4]
    ```

    Args:
        path: The file.

    Raises:
        ValueError: If it cannot be read or means nothing; the message names the place.
    """
    check_config(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    place = f"the grid '{path}'"
    for part, value in content.items():
        if part not in PARTS:
            raise ValueError(f"{place} has the part '{part}'; there are {' and '.join(PARTS)}")
        if not isinstance(value, dict) or not value:
            raise ValueError(f"the part '{part}' of {place} is no mapping of names to {_holds(part)}")
    if not content:
        raise ValueError(f"{place} is empty; it has {' or '.join(PARTS)}")
    named = [(str(name), _variant(str(name), value, path)) for name, value in content.get("variants", {"": {}}).items()]
    axes = [_axis(str(option), values, place) for option, values in content.get("axes", {}).items()]
    made = [
        Variant("_".join(filter(None, (name, ",".join(word for word, _ in point)))), (*options, *(o for _, o in point)))
        for name, options in named
        for point in itertools.product(*axes)
    ]
    for variant in made:
        if not NAME.fullmatch(variant.name) or variant.name in (".", ".."):
            raise ValueError(f"{place} has the variant '{variant.name}', which names no folder; use letters and digits")
    names = [variant.name for variant in made]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{place} has two variants with the name '{double}'")
    return made


def _holds(part: str) -> str:
    return "options" if part == "variants" else "lists of values"


def _variant(name: str, value: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(value, dict):
        raise ValueError(f"the variant '{name}' of the grid '{path}' is no mapping of options to values; {{}} is none")
    overlays = value.get("config", [])
    options: list[str] = []
    for overlay in overlays if isinstance(overlays, list) else [overlays]:
        file = path.parent / str(overlay)
        if not file.is_file():
            raise ValueError(f"the variant '{name}' of the grid '{path}' names the config '{file}', which is no file")
        options += ["-c", str(file)]
    place = f"the variant '{name}' of the grid '{path}'"
    return (*options, *(_option(str(key), inner, place) for key, inner in value.items() if key != "config"))


def _axis(option: str, values: Any, place: str) -> list[tuple[str, str]]:
    """Of each value of an axis its part of the name, and the option."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"the axis '{option}' of {place} is no list of values")
    short = option.rpartition(".")[2]
    words = [re.sub(r"[^\w.+-]+", "-", str(value).rpartition("/")[2]) for value in values]
    return [(f"{short}={word}", _option(option, value, place)) for word, value in zip(words, values, strict=True)]


def _option(name: str, value: Any, place: str) -> str:
    bare = name.lstrip("-")
    if any(bare == own or bare.startswith(f"{own}.") for own in BY_THE_SWEEP):
        raise ValueError(f"{place} sets '{name}', which the sweep sets itself")
    return f"--{bare}={value if isinstance(value, str) else json.dumps(value)}"
