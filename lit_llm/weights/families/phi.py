"""Phi-1, 1.5 and 2 (https://arxiv.org/abs/2309.05463): parallel blocks; Phi-3 and 4 (2404.14219): a Llama, fused."""

from lit_llm.backbone.blocks import ParallelBlock
from lit_llm.backbone.layers import Embedding, Head
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.gpt2 import BIASED_PARTS
from lit_llm.weights.families.llama import LAYER, NAMES, PARTS, SIZES, heads
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Key, Only

PHI = Family(
    model_type="phi",
    architecture="PhiForCausalLM",
    classifier="PhiForSequenceClassification",
    fixed={
        **BIASED_PARTS,
        "block": ParallelBlock,
        "block.shared_norm": True,
        "embedding": Embedding,
        "embedding.positions": False,
        "embedding.scale": 1.0,
        "head": Head,
        "head.tied": False,
        "head.bias": True,
    },
    rules=(
        *SIZES,
        *heads(),
        Key("intermediate_size", "mlp.hidden"),
        Key("layer_norm_eps", "norm.eps", 1e-5),
        Activation("hidden_act", "mlp.activation", "gelu_new", tanh="gelu_new"),
        Only("tie_word_embeddings", False),
        Only("qk_layernorm", False),
        Rotation(fraction=0.5),
    ),
    names={
        **NAMES,
        "blocks.{i}.attention.proj": f"{LAYER}self_attn.dense",
        "blocks.{i}.mlp.fc": f"{LAYER}mlp.fc1",
        "blocks.{i}.mlp.proj": f"{LAYER}mlp.fc2",
        "norm": "model.final_layernorm",
    },
)
PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    classifier="Phi3ForSequenceClassification",
    fixed={**PARTS, "attention.qkv_bias": False, "attention.out_bias": False},
    rules=(
        *SIZES,
        *heads(),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", "norm.eps", 1e-5),
        Key("sliding_window", "attention.window", None),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        Rotation(),
    ),
    names={
        **NAMES,
        "blocks.{i}.attention.qkv": f"{LAYER}self_attn.qkv_proj",
        "blocks.{i}.mlp.fc": f"{LAYER}mlp.gate_up_proj",
    },
)
