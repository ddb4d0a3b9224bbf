"""Llama 1 to 3.2 (https://arxiv.org/abs/2407.21783), SmolLM2, which is one, and Mistral: a Llama with a window.

What the other families have in common with them stands here, too.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from lit_llm.backbone import Block
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP, Head
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.names import Fused, Table
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Key, Only, Rule

LAYER = "model.layers.{i}."
PARTS: Flat = {
    "norm": nn.RMSNorm,
    "norm.elementwise_affine": True,
    "attention": CausalSelfAttention,
    "mlp": GatedMLP,
    "mlp.bias": False,
    "block": Block,
    "embedding": Embedding,
    "embedding.positions": False,
    "embedding.scale": 1.0,
    "head": Head,
}
SIZES: tuple[Rule, ...] = (
    Key("vocab_size", "vocab_size"),
    Key("max_position_embeddings", "block_size"),
    Key("hidden_size", "n_embd"),
    Key("num_hidden_layers", "n_layer"),
    Key("num_attention_heads", "n_head"),
)
NAMES: Table = {
    "embedding.tokens": "model.embed_tokens",
    "blocks.{i}.norm_1": f"{LAYER}input_layernorm",
    "blocks.{i}.attention.qkv": Fused(*(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
    "blocks.{i}.attention.proj": f"{LAYER}self_attn.o_proj",
    "blocks.{i}.norm_2": f"{LAYER}post_attention_layernorm",
    "blocks.{i}.mlp.fc": Fused(f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj"),
    "blocks.{i}.mlp.proj": f"{LAYER}mlp.down_proj",
    "norm": "model.norm",
    "head.linear": "lm_head",
}
HEAD_NORMS: Table = {f"blocks.{{i}}.attention.{part}_norm": f"{LAYER}self_attn.{part}_norm" for part in "qk"}


def heads(head_dim: Any = None, of: tuple[str, ...] = ("attention",)) -> tuple[Rule, ...]:
    """Key-value heads and their width, in one or in both of the attentions."""
    paths = {name: " ".join(f"{part}.{name}" for part in of) for name in ("n_kv_head", "head_dim")}
    return Key("num_key_value_heads", paths["n_kv_head"], None), Key("head_dim", paths["head_dim"], head_dim)


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    classifier="LlamaForSequenceClassification",
    fixed=PARTS,
    rules=(
        *SIZES,
        *heads(),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("attention_bias", "attention.qkv_bias attention.out_bias", False),
        Only("mlp_bias", False),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        Only("rope_interleaved", False),
        Rotation(),
    ),
    names=NAMES,
)
MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    architecture="MistralForCausalLM",
    classifier="MistralForSequenceClassification",
    fixed={**PARTS, "attention.qkv_bias": False, "attention.out_bias": False},
    rules=(
        *SIZES,
        *heads(),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("sliding_window", "attention.window", 4096),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        Rotation(),
    ),
)
