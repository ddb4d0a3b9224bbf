"""A tiny GPT-2 as others store it: a folder of the kind that Hugging Face's libraries write."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {
    "model_type": "gpt2",
    "n_embd": 24,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 11,
    "vocab_size": 97,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}


def tensors() -> dict[str, torch.Tensor]:
    """Those of a tiny GPT-2, as its authors name them."""
    drawn = torch.Generator().manual_seed(1)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (97, 24), "wpe.weight": (11, 24)}
    for n in range(2):
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"h.{n}.{norm}.weight": (24,), f"h.{n}.{norm}.bias": (24,)}
        for name, rows, columns in (("attn.c_attn", 24, 72), ("attn.c_proj", 24, 24), ("mlp.c_fc", 24, 96)):
            shapes |= {f"h.{n}.{name}.weight": (rows, columns), f"h.{n}.{name}.bias": (columns,)}
        shapes |= {f"h.{n}.mlp.c_proj.weight": (96, 24), f"h.{n}.mlp.c_proj.bias": (24,)}
    shapes |= {"ln_f.weight": (24,), "ln_f.bias": (24,)}
    return {f"transformer.{name}": torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def write_gpt2(path: Path) -> Path:
    """The folder."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors(), path / "model.safetensors")
    return path
