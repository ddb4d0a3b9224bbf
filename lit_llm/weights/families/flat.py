"""Settings as a flat table: `attention.n_kv_head: 2`, a part's class under the part's own name.

`{"norm": RMSNorm, "norm.eps": 1e-05}` says what a config says by a class_path with init_args. Families are written in
this form, in both directions: `nested` makes settings of it, `facts` reads it off a backbone that was built.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from lit_llm.backbone import GPT, Block
from lit_llm.backbone.blocks import ParallelBlock, PostNormBlock, SandwichBlock
from lit_llm.backbone.experts import Experts
from lit_llm.backbone.layers import (
    MLP,
    CausalSelfAttention,
    Embedding,
    GatedMLP,
    Head,
    UnitOffsetRMSNorm,
    WideNormAttention,
)
from lit_llm.backbone.rotary import LinearRotary, Llama3Rotary, Rotary

Flat = dict[str, Any]
Getter = Callable[[Any], Any]


def _own(*names: str) -> dict[str, Getter]:
    """Arguments that a part keeps under their own names."""
    return {name: attrgetter(name) for name in names}


ATTENTION: dict[str, Getter] = _own("head_dim", "window", "scale", "softcap", "rotary") | {
    "n_kv_head": lambda attention: attention.sizes[1] // attention.head_dim,
    "qkv_bias": lambda attention: attention.qkv.bias is not None,
    "out_bias": lambda attention: attention.proj.bias is not None,
    "qk_norm": attrgetter("q_norm"),
}
# By class, the arguments that decide what it computes. Dropout is training's own, and no layout of others says it.
ARGUMENTS: dict[type, dict[str, Getter]] = {
    nn.LayerNorm: _own("eps", "elementwise_affine") | {"bias": lambda norm: norm.bias is not None},
    nn.RMSNorm: _own("elementwise_affine")
    | {"eps": lambda norm: torch.finfo(torch.float32).eps if norm.eps is None else norm.eps},
    UnitOffsetRMSNorm: _own("eps"),
    nn.GELU: _own("approximate"),
    Rotary: _own("theta", "fraction"),
    LinearRotary: _own("theta", "fraction", "factor"),
    Llama3Rotary: _own("theta", "factor", "low_freq_factor", "high_freq_factor", "original_block_size"),
    CausalSelfAttention: ATTENTION,
    WideNormAttention: ATTENTION,
    MLP: _own("activation")
    | {"hidden": lambda mlp: mlp.fc.out_features, "bias": lambda mlp: mlp.proj.bias is not None},
    GatedMLP: _own("activation")
    | {"hidden": lambda mlp: mlp.proj.in_features, "bias": lambda mlp: mlp.proj.bias is not None},
    Experts: _own("n_active", "activation", "renormalize")
    | {
        "hidden": lambda experts: experts.expert_proj.weight.shape[2],
        "n_expert": lambda experts: len(experts.expert_proj.weight),
        "shared_hidden": lambda experts: experts.shared and experts.shared.proj.in_features,
    },
    Block: {},
    PostNormBlock: {},
    SandwichBlock: {},
    ParallelBlock: _own("shared_norm"),
    Embedding: _own("scale") | {"positions": lambda embedding: embedding.positions is not None},
    Head: _own("softcap")
    | {"tied": lambda head: head.linear is None, "bias": lambda head: getattr(head.linear, "bias", None) is not None},
}


def nested(flat: Flat) -> dict[str, Any]:
    """The settings of a GPT; what is None is left to its default."""
    settings: dict[str, Any] = {"class_path": "lit_llm.GPT", "init_args": {}}
    # Sizes before parts, and parts before what is in them.
    for path, value in sorted(flat.items(), key=lambda item: (item[0].count("."), _is_class(item[1]))):
        *owners, name = path.split(".")
        part = settings
        for owner in owners:
            part = part["init_args"][owner]
        if value is not None:
            part["init_args"][name] = {"class_path": _path(value), "init_args": {}} if _is_class(value) else value
    return settings


def _is_class(value: Any) -> bool:
    return isinstance(value, type)


def _path(cls: type) -> str:
    """Where a class is imported from; torch's by the short name that everybody uses."""
    return f"torch.nn.{cls.__name__}" if getattr(nn, cls.__name__, None) is cls else f"{cls.__module__}.{cls.__name__}"


def facts(backbone: GPT, local: Callable[[Flat], bool] = lambda attention: False) -> Flat:
    """All arguments of a backbone that decide what it computes, its patterns as one letter for each layer.

    Args:
        backbone: Built, on any device.
        local: Which attentions the family marks L, by their own facts (`attention.window`).

    Raises:
        ValueError: If layers of the same letter differ.
    """
    flat: Flat = {
        "vocab_size": backbone.vocab_size,
        "block_size": backbone.block_size,
        "n_layer": len(backbone.blocks),
        "n_embd": backbone.embedding.tokens.embedding_dim,
        "pattern": "",
        "mlp_pattern": "",
    }
    for name in ("norm", "embedding", "head"):
        flat |= _facts_of(name, getattr(backbone, name))
    block: Any
    for number, block in enumerate(backbone.blocks):
        attention = _facts_of("attention", block.attention)
        is_local, is_sparse = local(attention), type(block.mlp) is Experts
        said = _facts_of("block", block) | _facts_of("experts" if is_sparse else "mlp", block.mlp)
        said |= {f"local_{path}": value for path, value in attention.items()} if is_local else attention
        if (sizes := getattr(block.attention, "sizes", None)) is not None:
            said["n_head"] = sizes[0] // block.attention.head_dim
        if strange := [path for path in said if path in flat and flat[path] != said[path]]:
            raise ValueError(f"it: {strange[0]} is {said[strange[0]]} in layer {number}, but {flat[strange[0]]} before")
        flat |= said
        flat["pattern"] += "L" if is_local else "G"
        flat["mlp_pattern"] += "E" if is_sparse else "M"
    return flat


def _facts_of(path: str, part: Any) -> Flat:
    if not isinstance(part, nn.Module):
        return {path: part}
    flat: Flat = {path: type(part)}
    for name, value in ARGUMENTS.get(type(part), {}).items():
        flat |= _facts_of(f"{path}.{name}", value(part))
    return flat
