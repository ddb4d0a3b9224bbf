"""GPT-NeoX (https://arxiv.org/abs/2204.06745) and Pythia (https://arxiv.org/abs/2304.01373)."""

from typing import Any

from torch import nn

from lit_llm.backbone import Block
from lit_llm.backbone.blocks import ParallelBlock
from lit_llm.backbone.layers import MLP, CausalSelfAttention, Embedding, Head
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.llama import SIZES
from lit_llm.weights.families.names import Interleaved
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Config, Key

LAYER = "gpt_neox.layers.{i}."


class Residual:
    """`use_parallel_residual`."""

    def read(self, config: Config) -> Flat:
        """The wiring of the block."""
        if config.get("use_parallel_residual", True):
            return {"block": ParallelBlock, "block.shared_norm": False}
        return {"block": Block}

    def write(self, facts: Flat) -> dict[str, Any]:
        """Whether it is parallel."""
        return {"use_parallel_residual": facts["block"] is ParallelBlock}


NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    classifier="GPTNeoXForSequenceClassification",
    prefix="gpt_neox.",
    fixed={
        "norm": nn.LayerNorm,
        "norm.elementwise_affine": True,
        "norm.bias": True,
        "attention": CausalSelfAttention,
        "mlp": MLP,
        "mlp.bias": True,
        "embedding": Embedding,
        "embedding.positions": False,
        "embedding.scale": 1.0,
        "head": Head,
    },
    rules=(
        *SIZES,
        Key("intermediate_size", "mlp.hidden"),
        Key("layer_norm_eps", "norm.eps", 1e-5),
        Key("attention_bias", "attention.qkv_bias attention.out_bias", True),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "gelu"),
        Residual(),
        Rotation(fraction=0.25, theta_key="rotary_emb_base", fraction_key="rotary_pct"),
    ),
    names={
        "embedding.tokens": "gpt_neox.embed_in",
        "blocks.{i}.norm_1": f"{LAYER}input_layernorm",
        "blocks.{i}.attention.qkv": Interleaved(f"{LAYER}attention.query_key_value"),
        "blocks.{i}.attention.proj": f"{LAYER}attention.dense",
        "blocks.{i}.norm_2": f"{LAYER}post_attention_layernorm",
        "blocks.{i}.mlp.fc": f"{LAYER}mlp.dense_h_to_4h",
        "blocks.{i}.mlp.proj": f"{LAYER}mlp.dense_4h_to_h",
        "norm": "gpt_neox.final_layer_norm",
        "head.linear": ("embed_out", "lm_head"),
    },
)
