"""Families of pretrained models: Hugging Face's config.json and tensors as our settings and tensors, and back.

A family is data, one file each. What it offers to those who read folders and write them:

- `family_of(config)`: the `Family` of a config.json, by its `model_type`;
- `family_for(settings)`: the `Family` that can express a backbone, by what it computes;
- `Family.settings(config)`: our full architecture, `{"class_path": "lit_llm.GPT", "init_args": {...}}`;
- `Family.config(settings, dtype)`: a config.json, from which `transformers` builds the same model;
- `Family.entries(backbone, present)`: for each tensor of ours an `Entry` with `name`, `theirs` (names), `join(theirs)`
  and `split(ours)`, and in `copies` the names of a tied head, which in a file may be there once more;
- `Family.ignores(name)`: whether a tensor of theirs was never learned (masks, tables of angles in older files).

All directions come from the same table, so that what was read is written again bit for bit. What cannot be said is
refused by a ValueError of one sentence, never approximated.
"""

from typing import Any

from lit_llm.weights.build import build
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.gemma import GEMMA, GEMMA2, GEMMA3
from lit_llm.weights.families.gpt2 import GPT2
from lit_llm.weights.families.llama import LLAMA, MISTRAL
from lit_llm.weights.families.mixtral import MIXTRAL
from lit_llm.weights.families.names import Entry
from lit_llm.weights.families.neox import NEOX
from lit_llm.weights.families.olmo import OLMO2, OLMO3
from lit_llm.weights.families.phi import PHI, PHI3
from lit_llm.weights.families.qwen import QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE
from lit_llm.weights.families.smollm3 import SMOLLM3

__all__ = ["FAMILIES", "Entry", "Family", "family_for", "family_of"]

# In the order in which they are tried for a backbone: of two that can express it, the one that more programs read.
FAMILIES = {
    family.model_type: family
    for family in (
        *(GPT2, LLAMA, MISTRAL, MIXTRAL, QWEN2, QWEN3, QWEN2_MOE, QWEN3_MOE, GEMMA, GEMMA2, GEMMA3),
        *(PHI, PHI3, NEOX, OLMO2, OLMO3, SMOLLM3),
    )
}


def family_of(config: dict[str, Any]) -> Family:
    """The family of a model from elsewhere.

    Args:
        config: The content of its config.json.

    Raises:
        ValueError: If it has no `model_type`, or one that is not known.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        said = f"the config's model_type is {kind!r}" if kind else "the config has no model_type"
        raise ValueError(f"{said}; known are {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def family_for(settings: dict[str, Any], preferred: str | None = None) -> Family:
    """The first family that can express a backbone of ours.

    Args:
        settings: Of the backbone, as configs and checkpoints hold them.
        preferred: The `model_type` to take if it can: that of the model which the backbone was loaded from, for some
            families compute the same under other names (a Phi-3 is a Llama with fused projections).

    Raises:
        ValueError: If there is none, with what the nearest one lacks.
    """
    backbone = build(settings, "meta")
    order = sorted(FAMILIES.values(), key=lambda family: family.model_type != preferred)  # stable: the others as above
    lacking = {}
    for family in order:
        if not (missing := family.lacks(backbone)):
            return family
        lacking[family.model_type] = missing
    nearest = min(lacking, key=lambda kind: len(lacking[kind]))
    raise ValueError(
        f"no family of pretrained models computes what this backbone does; the nearest, '{nearest}', cannot say "
        f"{' and '.join(lacking[nearest][:3])}"
    )
