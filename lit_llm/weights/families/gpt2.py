"""GPT-2 (Radford et al., 2019) in Hugging Face's layout: linear layers stored as Conv1D, that is transposed."""

from typing import Any

from torch import nn

from lit_llm.backbone import Block
from lit_llm.backbone.layers import MLP, CausalSelfAttention, Embedding, Head
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.names import Transposed
from lit_llm.weights.families.rules import Activation, Key, Only

# Layer norms, a plain MLP, and biases everywhere: of Phi's first models as well.
BIASED_PARTS: dict[str, Any] = {
    "norm": nn.LayerNorm,
    "norm.elementwise_affine": True,
    "norm.bias": True,
    "attention": CausalSelfAttention,
    "attention.qkv_bias": True,
    "attention.out_bias": True,
    "mlp": MLP,
    "mlp.bias": True,
}

GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    classifier="GPT2ForSequenceClassification",
    prefix="transformer.",
    fixed={
        **BIASED_PARTS,
        "block": Block,
        "embedding": Embedding,
        "embedding.positions": True,
        "embedding.scale": 1.0,
        "head": Head,
    },
    rules=(
        Key("vocab_size", "vocab_size"),
        Key("n_positions", "block_size"),
        Key("n_embd", "n_embd"),
        Key("n_layer", "n_layer"),
        Key("n_head", "n_head"),
        Key("n_inner", "mlp.hidden", None),
        Activation("activation_function", "mlp.activation", "gelu_new", tanh="gelu_new"),
        Key("layer_norm_epsilon", "norm.eps", 1e-5),
        Key("tie_word_embeddings", "head.tied", True),
        Only("scale_attn_weights", True),
        Only("scale_attn_by_inverse_layer_idx", False),
        Only("add_cross_attention", False),
    ),
    names={
        "embedding.tokens": "transformer.wte",
        "embedding.positions": "transformer.wpe",
        "blocks.{i}.norm_1": "transformer.h.{i}.ln_1",
        "blocks.{i}.attention.qkv": Transposed("transformer.h.{i}.attn.c_attn"),
        "blocks.{i}.attention.proj": Transposed("transformer.h.{i}.attn.c_proj"),
        "blocks.{i}.norm_2": "transformer.h.{i}.ln_2",
        "blocks.{i}.mlp.fc": Transposed("transformer.h.{i}.mlp.c_fc"),
        "blocks.{i}.mlp.proj": Transposed("transformer.h.{i}.mlp.c_proj"),
        "norm": "transformer.ln_f",
        "head.linear": "lm_head",
    },
)
