"""SmolLM3 (https://huggingface.co/blog/smollm3): a Llama whose every fourth layer has no positions."""

from typing import Any

from lit_llm.backbone.layers import CausalSelfAttention
from lit_llm.weights.families.family import Family
from lit_llm.weights.families.flat import Flat
from lit_llm.weights.families.layers import shortest
from lit_llm.weights.families.llama import NAMES, PARTS, SIZES, heads
from lit_llm.weights.families.qwen import BOTH, both
from lit_llm.weights.families.rotation import Rotation
from lit_llm.weights.families.rules import Activation, Config, Key, Only


def has_positions(attention: Flat) -> bool:
    """Whether an attention knows where a token stands: in our pattern L, and G without positions."""
    return attention.get("attention.rotary") is not None


class Positions:
    """`no_rope_layers`: 1 for a layer with positions, 0 for one without."""

    def read(self, config: Config) -> Flat:
        """The pattern."""
        if set(config.get("layer_types") or ()) - {"full_attention"}:
            raise ValueError("the config's layer_types has windows, which are not known of a 'smollm3'")
        n_layer, interval = config["num_hidden_layers"], config.get("no_rope_layer_interval", 4)
        rotates = config.get("no_rope_layers") or [(i + 1) % interval for i in range(n_layer)]
        return {"pattern": shortest("".join("L" if one else "G" for one in rotates[:n_layer]))}

    def write(self, facts: Flat) -> dict[str, Any]:
        """A number for each layer."""
        return {
            "no_rope_layers": [int(letter == "L") for letter in facts["pattern"]],
            "layer_types": ["full_attention"] * facts["n_layer"],
        }


SMOLLM3 = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    classifier="SmolLM3ForSequenceClassification",
    fixed={**PARTS, "attention.rotary": None, "local_attention": CausalSelfAttention},
    rules=(
        *SIZES,
        *heads(of=BOTH),
        Key("intermediate_size", "mlp.hidden"),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("attention_bias", both("qkv_bias", "out_bias"), False),
        Key("tie_word_embeddings", "head.tied", True),
        Only("mlp_bias", False),
        Only("use_sliding_window", False),
        Activation("hidden_act", "mlp.activation", "silu"),
        Positions(),
        Rotation("local_attention.rotary", 2e6),
    ),
    names=NAMES,
    local=has_positions,
)
