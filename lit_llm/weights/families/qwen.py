"""Qwen 1.5, 2, 2.5 (https://arxiv.org/abs/2407.10671) and 3 (https://arxiv.org/abs/2505.09388), also with experts."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lit_llm.backbone.experts import Experts
from lit_llm.backbone.layers import CausalSelfAttention
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.layers import LayerTypes, SparseLayers, has_window
from lit_llm.weights.families.llama import HEAD_NORMS, LAYER, NAMES, PARTS, SIZES, heads
from lit_llm.weights.families.names import Fused, PerExpert, Table
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Config, Key

BOTH = ("attention", "local_attention")


def both(*names: str) -> str:
    """Paths of arguments in both attentions."""
    return " ".join(f"{part}.{name}" for name in names for part in BOTH)


def last_layers(config: Config) -> str:
    """Windows from layer `max_window_layers` on."""
    n_layer, first = config["num_hidden_layers"], config.get("max_window_layers", 28)
    return "".join("G" if i < first else "L" for i in range(n_layer))


def odd_layers(config: Config) -> str:
    """Windows in every second one of the layers before `max_window_layers`."""
    n_layer, end = config["num_hidden_layers"], config.get("max_window_layers", 28)
    return "".join("L" if i < end and (i + 1) % 2 else "G" for i in range(n_layer))


@dataclass(frozen=True)
class SwitchedWindow:
    """`sliding_window` of all layers, if `use_sliding_window`."""

    def read(self, config: Config) -> Flat:
        """The window."""
        window, _ = config.get("sliding_window", 4096), config.get("max_window_layers")  # which it does not heed
        return {"attention.window": window if config.get("use_sliding_window") else None}

    def write(self, facts: Flat) -> dict[str, Any]:
        """The window and the switch."""
        window = facts.get("attention.window")
        return {"sliding_window": window, "use_sliding_window": window is not None}


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    classifier="Qwen2ForSequenceClassification",
    fixed={
        **PARTS,
        "local_attention": CausalSelfAttention,
        **dict.fromkeys(both("qkv_bias").split(), True),
        **dict.fromkeys(both("out_bias").split(), False),
    },
    rules=(
        *SIZES,
        *heads(of=BOTH),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        LayerTypes(last_layers, switch="use_sliding_window"),
        Rotation(both("rotary")),
    ),
    names=NAMES,
    local=has_window,
)
QWEN3 = replace(
    QWEN2,
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    classifier="Qwen3ForSequenceClassification",
    fixed={
        **PARTS,
        "local_attention": CausalSelfAttention,
        **dict.fromkeys(both("qk_norm").split(), nn.RMSNorm),
        **dict.fromkeys(both("qk_norm.elementwise_affine").split(), True),
    },
    rules=(
        *SIZES,
        *heads(128, BOTH),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", f"norm.eps {both('qk_norm.eps')}", 1e-6),
        Key("attention_bias", both("qkv_bias", "out_bias"), False),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        LayerTypes(last_layers, switch="use_sliding_window"),
        Rotation(both("rotary")),
    ),
    names={**NAMES, **HEAD_NORMS},
)

ONE = f"{LAYER}mlp.experts.{{e}}."
EXPERTS: Table = {
    "blocks.{i}.mlp.router": f"{LAYER}mlp.gate",
    "blocks.{i}.mlp.expert_fc.weight": (
        PerExpert(f"{ONE}gate_proj.weight", f"{ONE}up_proj.weight"),
        f"{LAYER}mlp.experts.gate_up_proj",
    ),
    "blocks.{i}.mlp.expert_proj.weight": (PerExpert(f"{ONE}down_proj.weight"), f"{LAYER}mlp.experts.down_proj"),
}
SHARED_EXPERT: Table = {
    "blocks.{i}.mlp.shared.fc": Fused(f"{LAYER}mlp.shared_expert.gate_proj", f"{LAYER}mlp.shared_expert.up_proj"),
    "blocks.{i}.mlp.shared.proj": f"{LAYER}mlp.shared_expert.down_proj",
    "blocks.{i}.mlp.shared_gate": f"{LAYER}mlp.shared_expert_gate",
}
SPARSE = (
    Key("intermediate_size", "mlp.hidden"),
    Key("moe_intermediate_size", "experts.hidden"),
    Key("num_experts num_local_experts", "experts.n_expert"),
    Key("num_experts_per_tok", "experts.n_active"),
    Key("norm_topk_prob", "experts.renormalize", False),
    Activation("hidden_act", "mlp.activation experts.activation", "silu"),
    SparseLayers(),
)
QWEN2_MOE = replace(
    QWEN2,
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    classifier="Qwen2MoeForSequenceClassification",
    fixed={
        **{path: value for path, value in QWEN2.fixed.items() if not path.endswith("qkv_bias")},
        "experts": Experts,
    },
    rules=(
        *SIZES,
        *heads(of=BOTH),
        *SPARSE,
        Key("qkv_bias", both("qkv_bias"), True),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("shared_expert_intermediate_size", "experts.shared_hidden", 5632),
        Key("tie_word_embeddings", "head.tied", False),
        LayerTypes(odd_layers, switch="use_sliding_window"),
        Rotation(both("rotary")),
    ),
    names={**NAMES, **EXPERTS, **SHARED_EXPERT},
)
QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    classifier="Qwen3MoeForSequenceClassification",
    fixed={
        **PARTS,
        "attention.qk_norm": nn.RMSNorm,
        "attention.qk_norm.elementwise_affine": True,
        "experts": Experts,
        "experts.shared_hidden": None,
    },
    rules=(
        *SIZES,
        *heads(),
        *SPARSE,
        Key("rms_norm_eps", "norm.eps attention.qk_norm.eps", 1e-6),
        Key("attention_bias", "attention.qkv_bias attention.out_bias", False),
        Key("tie_word_embeddings", "head.tied", False),
        SwitchedWindow(),
        Rotation(),
    ),
    names={**NAMES, **HEAD_NORMS, **EXPERTS},
)
