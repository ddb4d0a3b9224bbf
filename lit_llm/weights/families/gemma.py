"""Gemma 1 (https://arxiv.org/abs/2403.08295), 2 (2408.00118) and the texts of 3 (2503.19786)."""

from dataclasses import dataclass
from typing import Any

from lit_llm.backbone.blocks import SandwichBlock
from lit_llm.backbone.layers import CausalSelfAttention, UnitOffsetRMSNorm
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.layers import LayerTypes, every, has_window
from lit_llm.weights.families.llama import HEAD_NORMS, LAYER, NAMES, PARTS, SIZES, heads
from lit_llm.weights.families.names import Table
from lit_llm.weights.families.qwen import BOTH, both
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Config, Key, Only, Rule


class EmbeddingScale:
    """The embedding is multiplied by the square root of `hidden_size`, which no key says."""

    def read(self, config: Config) -> Flat:
        """The factor."""
        return {"embedding.scale": config["hidden_size"] ** 0.5}

    def write(self, facts: Flat) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class ScoreScale:
    """`query_pre_attn_scalar`: scores are divided by its square root."""

    paths: str

    def read(self, config: Config) -> Flat:
        """The factor."""
        return dict.fromkeys(self.paths.split(), config.get("query_pre_attn_scalar", 256) ** -0.5)

    def write(self, facts: Flat) -> dict[str, Any]:
        """A whole number where it is one."""
        scalar = next((facts[path] for path in self.paths.split() if path in facts), 1.0) ** -2
        return {"query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 * scalar else scalar}


FIXED: Flat = {path: value for path, value in PARTS.items() if not path.startswith(("norm", "embedding.scale"))}
SHARED: tuple[Rule, ...] = (
    *SIZES,
    EmbeddingScale(),
    Key("intermediate_size", "mlp.hidden"),
    Key("tie_word_embeddings", "head.tied", True),
    Only("use_bidirectional_attention", False),
)
GEMMA = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    classifier="GemmaForSequenceClassification",
    fixed={**FIXED, "norm": UnitOffsetRMSNorm},
    rules=(
        *SHARED,
        *heads(256),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("attention_bias", "attention.qkv_bias attention.out_bias", False),
        # The first configs said "gelu" and meant the one with a tanh.
        Activation("hidden_act", "mlp.activation", "gelu_pytorch_tanh", gelu="gelu_pytorch_tanh"),
        Only("hidden_activation", "gelu_pytorch_tanh"),
        Rotation(),
    ),
    names=NAMES,
)

NORMS: Table = {
    "blocks.{i}.norm_1": f"{LAYER}input_layernorm",
    "blocks.{i}.post_norm_1": f"{LAYER}post_attention_layernorm",
    "blocks.{i}.norm_2": f"{LAYER}pre_feedforward_layernorm",
    "blocks.{i}.post_norm_2": f"{LAYER}post_feedforward_layernorm",
}
ALTERNATING: tuple[Rule, ...] = (
    *SHARED,
    *heads(256, BOTH),
    ScoreScale(both("scale")),
    Key("attention_bias", both("qkv_bias", "out_bias"), False),
    Activation("hidden_activation", "mlp.activation", "gelu_pytorch_tanh"),
)
GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    classifier="Gemma2ForSequenceClassification",
    fixed={**FIXED, "norm": UnitOffsetRMSNorm, "block": SandwichBlock, "local_attention": CausalSelfAttention},
    rules=(
        *ALTERNATING,
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("attn_logit_softcapping", both("softcap"), 50.0),
        Key("final_logit_softcapping", "head.softcap", 30.0),
        Only("hidden_act", "gelu_pytorch_tanh"),
        LayerTypes(every(2)),
        Rotation(both("rotary")),
    ),
    names={**NAMES, **NORMS},
    local=has_window,
)


def sliding_window_pattern(config: Config) -> str:
    """All layers are local but each sixth, or each one of another number."""
    return every(config.get("sliding_window_pattern") or 6)(config)


GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    classifier="Gemma3TextForSequenceClassification",
    fixed={**GEMMA2.fixed, **dict.fromkeys(both("qk_norm").split(), UnitOffsetRMSNorm)},
    rules=(
        *ALTERNATING,
        Key("rms_norm_eps", f"norm.eps {both('qk_norm.eps')}", 1e-6),
        Key("attn_logit_softcapping", both("softcap"), None),
        Key("final_logit_softcapping", "head.softcap", None),
        LayerTypes(sliding_window_pattern),
        Rotation("attention.rotary", 1e6, layers="full_attention"),
        Rotation("local_attention.rotary", theta_key="rope_local_base_freq", layers="sliding_attention", scaled=False),
    ),
    names={**NAMES, **NORMS, **HEAD_NORMS},
    local=has_window,
)
