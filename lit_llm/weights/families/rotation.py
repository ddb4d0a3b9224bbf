"""Rotary positions in their config.json, in the three ways that it has been said over the years."""

from dataclasses import dataclass
from typing import Any

from lit_llm.backbone.rotary import LinearRotary, Llama3Rotary, Rotary
from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.rules import Config

ORIGINAL = "original_max_position_embeddings"
# By rope_type: our class, and its arguments by their names. The others are refused, never taken for one of these.
SCALINGS: dict[str, tuple[type[Rotary], dict[str, str]]] = {
    "default": (Rotary, {}),
    "linear": (LinearRotary, {"factor": "factor"}),
    "llama3": (
        Llama3Rotary,
        {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            ORIGINAL: "original_block_size",
        },
    ),
}


@dataclass(frozen=True)
class Rotation:
    """`rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` as before; both are written.

    Args:
        paths: The arguments that hold the rotary positions, one or several with blanks between them.
        theta: What a config without a base means.
        fraction: What a config without a share of rotated channels means.
        theta_key: The older key of the base.
        fraction_key: The older key of the share.
        layers: The kind of layers in a config that says it for each kind ("full_attention"). None: for all.
        scaled: Whether an older `rope_scaling` is meant for these layers.
    """

    paths: str = "attention.rotary"
    theta: float = 10_000.0
    fraction: float = 1.0
    theta_key: str = "rope_theta"
    fraction_key: str = "partial_rotary_factor"
    layers: str | None = None
    scaled: bool = True

    def read(self, config: Config) -> Flat:
        """The class of the scaling, and its arguments."""
        said = self._said(config)
        kind = said.pop("rope_type", None) or "default"
        if kind not in SCALINGS:
            raise ValueError(f"the config's rotary scaling is {kind!r}; known are {', '.join(SCALINGS)}")
        cls, arguments = SCALINGS[kind]
        older = {key: config.get(key) for key in (self.theta_key, self.fraction_key, ORIGINAL)}
        theta = said.pop("rope_theta", None) or older[self.theta_key] or self.theta
        fraction = said.pop("partial_rotary_factor", None) or older[self.fraction_key] or self.fraction
        flat: Flat = {"": cls, ".theta": theta}
        if cls is not Llama3Rotary:
            flat[".fraction"] = fraction
        elif fraction != 1:
            raise ValueError(f"the config's {self.fraction_key} is {fraction}, which is not known beside {kind!r}")
        if kind == "llama3":
            said[ORIGINAL] = said.get(ORIGINAL) or older[ORIGINAL] or config["max_position_embeddings"]
        if said.keys() != arguments.keys():
            raise ValueError(
                f"the config's rotary scaling {kind!r} has {', '.join(sorted(said)) or 'nothing'} where "
                f"{', '.join(arguments) or 'nothing'} is known"
            )
        flat |= {f".{arguments[key]}": value for key, value in said.items()}
        return {path + end: value for path in self.paths.split() for end, value in flat.items()}

    def _said(self, config: Config) -> dict[str, Any]:
        said = config.get("rope_parameters") or {}
        if any(isinstance(value, dict) for value in said.values()):
            said = said.get(self.layers) or {}
        scaling = dict(config.get("rope_scaling") or {}) if self.scaled else {}
        if "type" in scaling:  # as it was called at first
            scaling["rope_type"] = scaling.pop("type")
        return {**said, **scaling}

    def write(self, facts: Flat) -> dict[str, Any]:
        """Both ways of saying it."""
        path = next((path for path in self.paths.split() if path in facts), "")
        theta, fraction = facts.get(f"{path}.theta", self.theta), facts.get(f"{path}.fraction", 1.0)
        kinds = {cls: (kind, arguments) for kind, (cls, arguments) in SCALINGS.items()}
        kind, arguments = kinds.get(facts.get(path) or Rotary, ("default", {}))
        scaling = {"rope_type": kind, **{their: facts[f"{path}.{our}"] for their, our in arguments.items()}}
        said: dict[str, Any] = {**scaling, "rope_theta": theta}
        older: dict[str, Any] = {self.theta_key: theta}
        if kind != "default" and self.scaled:
            older["rope_scaling"] = scaling
        if fraction != 1 or self.fraction != 1:
            said["partial_rotary_factor"] = older[self.fraction_key] = fraction
        return {"rope_parameters": {self.layers: said} if self.layers else said, **older}
