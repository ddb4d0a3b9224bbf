"""OLMo 2 (https://arxiv.org/abs/2501.00656): norms after attention and MLP; OLMo 3: windows in three of four layers."""

from torch import nn

from lit_llm.backbone.blocks import PostNormBlock
from lit_llm.backbone.layers import WideNormAttention
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.layers import LayerTypes, every, has_window
from lit_llm.weights.families.llama import HEAD_NORMS, LAYER, NAMES, PARTS, SIZES, heads
from lit_llm.weights.families.qwen import BOTH, both
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Key

OLMO2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    classifier="Olmo2ForSequenceClassification",
    fixed={
        **PARTS,
        "block": PostNormBlock,
        "attention": WideNormAttention,
        "attention.qk_norm": nn.RMSNorm,
        "attention.qk_norm.elementwise_affine": True,
    },
    rules=(
        *SIZES,
        *heads(),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", "norm.eps attention.qk_norm.eps", 1e-5),
        Key("attention_bias", "attention.qkv_bias attention.out_bias", False),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        Rotation(),
    ),
    names={
        **NAMES,
        **HEAD_NORMS,
        "blocks.{i}.norm_1": f"{LAYER}post_attention_layernorm",
        "blocks.{i}.norm_2": f"{LAYER}post_feedforward_layernorm",
    },
)
OLMO3 = Family(
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    classifier="Olmo3ForSequenceClassification",
    fixed={
        **OLMO2.fixed,
        **{f"local_{path}": value for path, value in OLMO2.fixed.items() if path.startswith("attention")},
    },
    rules=(
        *SIZES,
        *heads(of=BOTH),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", f"norm.eps {both('qk_norm.eps')}", 1e-5),
        Key("attention_bias", both("qkv_bias", "out_bias"), False),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        LayerTypes(every(4)),
        Rotation("attention.rotary", 5e5, layers="full_attention"),
        Rotation("local_attention.rotary", 5e5, layers="sliding_attention", scaled=False),
    ),
    names=OLMO2.names,
    local=has_window,
)
