"""A family of pretrained models, said as data: rules for its config.json, a table for its names."""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

from lit_llm.backbone import GPT
from lit_llm.weights.build import build, tensors_of
from lit_llm.weights.families.flat import Flat, facts, nested
from lit_llm.weights.families.names import Entry, Named, Rows, Table
from lit_llm.weights.families.rules import Config, Rule

PATTERNS = (("pattern", "L", "local_attention"), ("mlp_pattern", "E", "experts"))
NUMBER = re.compile(r"(?<=^blocks\.)\d+")
BUFFERS = re.compile(r"\.(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")  # older files hold masks and tables


@dataclass(frozen=True)
class Family:
    """What Hugging Face's layout of a family says, and how our parts say the same.

    Args:
        model_type: Its name in config.json.
        architecture: The class in `transformers` that has a language modelling head.
        classifier: The one that tells classes of texts apart by the last token.
        fixed: Our arguments that are the same for every model of the family.
        rules: What the keys of config.json say about all other arguments.
        names: Their name of each module or parameter of ours.
        prefix: What files of a model without a head leave out of the names.
        local: Which attentions our patterns mark L, by their facts (`flat.facts`).
    """

    model_type: str
    architecture: str
    classifier: str
    fixed: Flat
    rules: tuple[Rule, ...]
    names: Table
    prefix: str = "model."
    local: Callable[[Flat], bool] = lambda attention: False

    def settings(self, config: dict[str, Any]) -> dict[str, Any]:
        """The full architecture of a model, as configs and checkpoints hold it.

        Args:
            config: The content of its config.json.

        Returns:
            `{"class_path": "lit_llm.GPT", "init_args": {...}}` of plain values.

        Raises:
            ValueError: If the config says something that our parts cannot compute, or that nobody here knows.
        """
        return nested(self._flat(config))

    def _flat(self, config: dict[str, Any]) -> Flat:
        read = Config(config)
        flat = dict(self.fixed)
        for rule in self.rules:
            flat |= rule.read(read)
        if unread := read.unread():
            raise ValueError(
                f"the config's {unread[0]} is {config[unread[0]]!r}, which is not known of a '{self.model_type}' and "
                "may change what it computes; take it out of config.json if it does not"
            )
        # What no layer has is not said.
        absent = [part for key, letter, part in PATTERNS if letter not in flat.get(key, "")]
        return {path: value for path, value in flat.items() if path.partition(".")[0] not in absent}

    def config(self, settings: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """The config.json of a backbone, from which `transformers` builds the same one; its ids of tokens are None.

        Args:
            settings: Of the backbone, as configs and checkpoints hold them.
            dtype: Of its weights.

        Raises:
            ValueError: If the family cannot express it, with the arguments that it lacks.
        """
        backbone = build(settings, "meta")
        if lacking := self.lacks(backbone):
            raise ValueError(f"a '{self.model_type}' cannot say {' and '.join(lacking[:3])}")
        name = str(dtype).removeprefix("torch.")
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),  # not what transformers has for defaults
            **self._written(facts(backbone, self.local)),
            "dtype": name,
            "torch_dtype": name,
        }

    def _written(self, own: Flat) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for rule in self.rules:
            for key, value in rule.write(own).items():
                before = written.get(key)
                written[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        return written

    def lacks(self, backbone: GPT) -> list[str]:
        """What a backbone computes and no config of this family says: written and read, it would be another one.

        Args:
            backbone: On any device, the meta device too.
        """
        try:
            own = facts(backbone, self.local)
            fixed = {path: value for path, value in self.fixed.items() if path.partition(".")[0] in own}
            fixed.pop("mlp_pattern", None)  # there it is tiled, here it has a letter for each layer
            if lacking := _differences({path: own.get(path) for path in fixed}, fixed):
                return lacking
            return _differences(own, facts(build(self.settings(self._written(own)), "meta"), self.local))
        except ValueError as error:
            return [f"it: {error}"]

    def entries(self, backbone: GPT, present: Collection[str] | None = None) -> list[Entry]:
        """How each tensor of a backbone is made of theirs, and back.

        Args:
            backbone: On any device, the meta device too.
            present: Names of the tensors that there are, where a family has had several spellings. None: as we write.

        Raises:
            ValueError: If the family has no name for a tensor.
        """
        return [self._entry(backbone, name, present) for name in tensors_of(backbone)]

    def ignores(self, name: str) -> bool:
        """Whether a tensor of theirs holds nothing that was learned, as a mask or a table of angles does."""
        return BUFFERS.search(name) is not None

    def _entry(self, backbone: GPT, name: str, present: Collection[str] | None) -> Entry:
        module_name, _, leaf = name.rpartition(".")
        pattern, of_module = NUMBER.sub("{i}", name), NUMBER.sub("{i}", module_name)
        if pattern not in self.names and of_module not in self.names:
            raise ValueError(f"a '{self.model_type}' has no name for the tensor {name}")
        said, end = (self.names[pattern], "") if pattern in self.names else (self.names[of_module], f".{leaf}")
        module: Any
        module, owner = backbone.get_submodule(module_name), backbone.get_submodule(module_name.rpartition(".")[0])
        layer = NUMBER.search(name)
        named, theirs = self._spelled(said, module, layer[0] if layer else "", end, present)
        transform = named.transform(module, owner)
        if module_name in ("embedding.tokens", "head.linear") and len(module.weight) > backbone.vocab_size:
            transform = Rows(backbone.vocab_size, len(module.weight))
        is_table = name == "embedding.tokens.weight" and "head.linear.weight" not in backbone.state_dict()
        copies = self._spelled(self.names["head.linear"], module, "", end, present)[1] if is_table else ()
        return Entry(name, theirs, transform, copies)

    def _spelled(
        self, said: Any, module: Any, layer: str, end: str, present: Collection[str] | None
    ) -> tuple[Named, tuple[str, ...]]:
        """The spelling that is present, or else the first one, and its names."""
        spellings = [
            one if isinstance(one, Named) else Named(one) for one in (said if isinstance(said, tuple) else [said])
        ]
        named = [(one, one.theirs(module, layer, end)) for one in spellings]
        named += [(one, tuple(name.removeprefix(self.prefix) for name in names)) for one, names in named]
        return next((one for one in named if set(one[1]) <= set(present or ())), named[0])


def _differences(own: Flat, other: Flat) -> list[str]:
    """Arguments that differ, the shorter names first; floats may differ by what a square root and its square do."""
    return [
        f"{path} {_shown(own.get(path))} ({_shown(other.get(path))} there)"
        for path in sorted(own.keys() | other.keys(), key=len)
        if not _equal(own.get(path), other.get(path))
    ]


def _equal(one: Any, other: Any) -> bool:
    return (
        math.isclose(one, other, rel_tol=1e-6) if isinstance(one, float) and isinstance(other, float) else one == other
    )


def _shown(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)
