"""Layers that alternate, in their config.json a word or a number for each, in ours a pattern of letters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.rules import Config

LETTERS = {"sliding_attention": "L", "full_attention": "G"}


def shortest(letters: str) -> str:
    """The shortest pattern that, repeated, begins with these letters."""
    return next(
        letters[:n] for n in range(1, len(letters) + 1) if (letters[:n] * len(letters))[: len(letters)] == letters
    )


def has_window(attention: Flat) -> bool:
    """Whether an attention is local by its window."""
    return attention.get("attention.window") is not None


def every(n: int) -> Callable[[Config], str]:
    """All layers are local but each n-th."""
    return lambda config: "L" * (n - 1) + "G"


@dataclass(frozen=True)
class LayerTypes:
    """`layer_types` and `sliding_window`.

    Args:
        default: The pattern that a config without `layer_types` means.
        switch: Key without which there is no window. None: there always is.
    """

    default: Callable[[Config], str]
    switch: str | None = None

    def read(self, config: Config) -> Flat:
        """The pattern, and the window of the local layers."""
        said, window = config.get("layer_types"), config.get("sliding_window", 4096)
        older, n_layer = self.default(config), config["num_hidden_layers"]
        if said and (strange := set(said) - set(LETTERS)):
            raise ValueError(f"the config's layer_types has {min(strange)!r}; known are {', '.join(LETTERS)}")
        letters = "".join(LETTERS[word] for word in said) if said else (older * n_layer)[:n_layer]
        if not window or (self.switch is not None and not config.get(self.switch)):
            letters, window = "G" * n_layer, None
        return {"pattern": shortest(letters), "local_attention.window": window}

    def write(self, facts: Flat) -> dict[str, Any]:
        """A word for each layer."""
        words = {letter: word for word, letter in LETTERS.items()}
        switch = {self.switch: "L" in facts["pattern"]} if self.switch else {}
        types = [words[letter] for letter in facts["pattern"]]
        return {"layer_types": types, "sliding_window": facts.get("local_attention.window"), **switch}


@dataclass(frozen=True)
class SparseLayers:
    """`decoder_sparse_step` and `mlp_only_layers`: which layers have experts."""

    def read(self, config: Config) -> Flat:
        """The pattern."""
        step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
        layers = range(config["num_hidden_layers"])
        letters = ("M" if i in dense or (i + 1) % step else "E" for i in layers)
        return {"mlp_pattern": shortest("".join(letters))}

    def write(self, facts: Flat) -> dict[str, Any]:
        """The layers without experts, one by one."""
        dense = [number for number, letter in enumerate(facts["mlp_pattern"]) if letter == "M"]
        return {"decoder_sparse_step": 1, "mlp_only_layers": dense}
