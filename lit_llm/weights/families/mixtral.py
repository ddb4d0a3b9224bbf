"""Mixtral (https://arxiv.org/abs/2401.04088): Mistral with a mixture of experts in each layer."""

from lit_llm.backbone.experts import Experts
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.llama import LAYER, NAMES, PARTS, SIZES, heads
from lit_llm.weights.families.names import PerExpert, Table
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Key

MOE = f"{LAYER}block_sparse_moe."
EXPERTS: Table = {
    "blocks.{i}.mlp.router": (f"{MOE}gate", f"{LAYER}mlp.gate"),
    "blocks.{i}.mlp.expert_fc.weight": (
        PerExpert(f"{MOE}experts.{{e}}.w1.weight", f"{MOE}experts.{{e}}.w3.weight"),
        f"{LAYER}mlp.experts.gate_up_proj",
    ),
    "blocks.{i}.mlp.expert_proj.weight": (
        PerExpert(f"{MOE}experts.{{e}}.w2.weight"),
        f"{LAYER}mlp.experts.down_proj",
    ),
}
MIXTRAL = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    classifier="MixtralForSequenceClassification",
    fixed={
        **{path: value for path, value in PARTS.items() if path != "mlp.bias"},
        "attention.qkv_bias": False,
        "attention.out_bias": False,
        "mlp_pattern": "E",
        "experts": Experts,
        "experts.renormalize": True,
        "experts.shared_hidden": None,
    },
    rules=(
        *SIZES,
        *heads(),
        Key("intermediate_size", "experts.hidden"),
        Key("num_local_experts", "experts.n_expert", 8),
        Key("num_experts_per_tok", "experts.n_active", 2),
        Key("rms_norm_eps", "norm.eps", 1e-5),
        Key("sliding_window", "attention.window", None),
        Key("tie_word_embeddings", "head.tied", False),
        Activation("hidden_act", "experts.activation", "silu"),
        Rotation(theta=1e6),
    ),
    names={**NAMES, **EXPERTS},
)
