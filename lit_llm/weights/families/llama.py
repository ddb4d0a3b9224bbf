"""Llama 1 to 3.2 (https://arxiv.org/abs/2407.21783), and models that call themselves one: SmolLM2, Yi, TinyLlama."""

from torch import nn

from lit_llm.backbone import Block
from lit_llm.backbone.layers import CausalSelfAttention, Embedding, GatedMLP, Head
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.names import Fused
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Key

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fixed={
        "norm": nn.RMSNorm,
        "norm.elementwise_affine": True,
        "attention": CausalSelfAttention,
        "mlp": GatedMLP,
        "block": Block,
        "embedding": Embedding,
        "embedding.positions": False,
        "embedding.scale": 1.0,
        "head": Head,
    },
    rules=(
        Key("vocab_size", "vocab_size", 32000),
        Key("max_position_embeddings", "block_size", 2048),
        Key("hidden_size", "n_embd", 4096),
        Key("num_hidden_layers", "n_layer", 32),
        Key("num_attention_heads", "n_head", 32),
        Key("num_key_value_heads", "attention.n_kv_head"),
        Key("head_dim", "attention.head_dim"),
        Key("intermediate_size", "mlp.hidden", 11008),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("attention_bias", "attention.qkv_bias attention.out_bias", False),
        Key("mlp_bias", "mlp.bias", False),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        Rotation(),
    ),
    names={
        "embedding.tokens": "model.embed_tokens",
        "blocks.{i}.norm_1": "model.layers.{i}.input_layernorm",
        "blocks.{i}.attention.qkv": Fused(*(f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv")),
        "blocks.{i}.attention.proj": "model.layers.{i}.self_attn.o_proj",
        "blocks.{i}.norm_2": "model.layers.{i}.post_attention_layernorm",
        "blocks.{i}.mlp.fc": Fused("model.layers.{i}.mlp.gate_proj", "model.layers.{i}.mlp.up_proj"),
        "blocks.{i}.mlp.proj": "model.layers.{i}.mlp.down_proj",
        "norm": "model.norm",
        "head.linear": "lm_head",
    },
)
