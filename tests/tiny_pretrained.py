"""Tiny models of every family, made by `transformers` with weights that nothing is neutral in."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor

from lit_llm.backbone import GPT
from lit_llm.weights.build import build, fill
from lit_llm.weights.families import family_of

B, T, V = 2, 13, 97
SIZES = {
    "vocab_size": V,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
# No ids of tokens: a padding id beyond the vocabulary is refused, one within it is a row of zeros.
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LAYERS = {"full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e4}}
MOE = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "mlp_only_layers": [1]}
NEOX = {key: value for key, value in SIZES.items() if "key_value" not in key} | {"hidden_size": 32}
WINDOW = {"sliding_window": 5}
ALTERNATING = ["sliding_attention", "sliding_attention", "full_attention"]

# Of each model: its class in transformers, its config, and settings of ours that turn off what is special in it.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2",
        {"vocab_size": V, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32, "n_inner": 20},
    ),
    "gpt2-untied": (
        "GPT2",
        {"vocab_size": V, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32, "tie_word_embeddings": False},
    ),
    "llama": ("Llama", SIZES | {"attention_bias": True, "head_dim": 10}),
    "llama-3.1": ("Llama", SIZES | {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "mistral": ("Mistral", SIZES | WINDOW),
    "mixtral": ("Mixtral", SIZES | WINDOW | {"num_local_experts": 5}),
    "qwen2": ("Qwen2", SIZES),
    "qwen2-window": ("Qwen2", SIZES | WINDOW | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("Qwen3", SIZES | {"head_dim": 10}),
    "qwen2_moe": ("Qwen2Moe", SIZES | MOE | {"shared_expert_intermediate_size": 14}),
    "qwen3_moe": ("Qwen3Moe", SIZES | MOE | {"head_dim": 10, "norm_topk_prob": True}),
    "gemma": ("Gemma", SIZES | {"head_dim": 10}),
    "gemma2": ("Gemma2", SIZES | WINDOW | {"head_dim": 10, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 3.0}),
    "gemma3": (
        "Gemma3Text",
        SIZES | WINDOW | {"head_dim": 10, "layer_types": ALTERNATING, "rope_parameters": LAYERS},
    ),
    "phi": ("Phi", SIZES | {"hidden_size": 32}),
    "phi3": ("Phi3", SIZES | WINDOW),
    "gpt_neox": ("GPTNeoX", NEOX),
    "gpt_neox-sequential": ("GPTNeoX", NEOX | {"use_parallel_residual": False}),
    "olmo2": ("Olmo2", SIZES),
    "olmo3": ("Olmo3", SIZES | WINDOW | {"layer_types": ALTERNATING}),
    "smollm3": ("SmolLM3", SIZES | {"num_hidden_layers": 5}),
}


def make(name: str, **changed: Any) -> Any:
    """A model of transformers in fp32, every parameter random: norms around one, biases not zero."""
    torch.manual_seed(0)
    kind, values = MODELS[name]
    values = values | changed
    config = getattr(transformers, f"{kind}Config")(**values, **TOKENS)
    head = "ForCausalLM" if kind != "GPT2" else "LMHeadModel"
    model = getattr(transformers, kind.removesuffix("Text") + head)._from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.5)
    return model.eval()


class Source:
    """A folder as transformers writes it, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        with safe_open(folder / "model.safetensors", "pt") as file:
            self.tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def load(self, dtype: torch.dtype | None = None, settings: dict[str, Any] | None = None) -> GPT:
        family = family_of(self.config)
        backbone = build(settings or family.settings(self.config), "meta")
        fill(backbone, self.tensors.__getitem__, family.entries(backbone, self.tensors), dtype)
        return backbone


def ids() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
