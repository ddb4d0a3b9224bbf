"""Every family: the same logits as `transformers`, the same tensors and an equal config when written again."""

from typing import Any

import pytest
import torch
import yaml
from tiny_pretrained import MODELS, Source, V, ids, make
from torch import Tensor

from lit_llm.backbone import GPT
from lit_llm.inference.generate import Reader
from lit_llm.weights.build import build, fill
from lit_llm.weights.families import FAMILIES, family_for, family_of

every_model = pytest.mark.parametrize("name", MODELS)
Made = dict[str, tuple[Any, Source, GPT]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Of transformers, its folder, and ours."""
    made = {}
    for name in MODELS:
        folder = tmp_path_factory.mktemp(name)
        model = make(name)
        model.save_pretrained(folder)
        source = Source(folder)
        made[name] = model, source, source.load()
    return made


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Of logits, as a share of the largest one."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_every_family_has_a_model(models: Made) -> None:
    assert {source.config["model_type"] for _, source, _ in models.values()} == set(FAMILIES)


@every_model
@torch.no_grad()
def test_logits_are_those_of_transformers(models: Made, name: str) -> None:
    """N11: in fp32 to 1e-5 of their scale; the input is longer than the windows."""
    model, _, backbone = models[name]
    assert distance(backbone(ids()), model(ids()).logits) < 1e-5


@every_model
@torch.no_grad()
def test_logits_in_bfloat16_are_near(models: Made, name: str) -> None:
    """To a tenth of their spread: 8 bits, and a rounded router may send a token elsewhere."""
    model, source, _ = models[name]
    exact = model(ids()).logits
    ours = source.load(torch.bfloat16)(ids()).float()
    assert (ours - exact).std() < 0.1 * exact.std()


PROMPTS = {"alone, beyond the windows": (13,), "alone, within them": (3,), "together": (13, 2, 6)}


@every_model
@pytest.mark.parametrize("lengths", PROMPTS.values(), ids=PROMPTS)
@torch.no_grad()
def test_cached_logits_are_uncached_ones(models: Made, name: str, lengths: tuple[int, ...]) -> None:
    """N8: rows of so many ids, short of the windows (5) or past them, read on far past them, each as if alone."""
    backbone = models[name][2]
    idx = torch.randint(V, (len(lengths), max(lengths) + 9), generator=torch.Generator().manual_seed(2))
    reader = Reader(backbone, max(lengths) + 9)
    steps = [reader.begin([row[:length].tolist() for row, length in zip(idx, lengths, strict=True)])]
    for step in range(9):
        new = torch.stack([row[length + step] for row, length in zip(idx, lengths, strict=True)])
        steps.append(reader.read(new[:, None])[:, 0])
    assert reader.cache is not None
    for number, (row, length) in enumerate(zip(idx, lengths, strict=True)):
        alone = backbone(row[None, : length + 9])[0, length - 1 :]
        assert distance(torch.stack([step[number] for step in steps]), alone) < 1e-5


@every_model
@torch.no_grad()
def test_the_last_token_changes_no_earlier_logit(models: Made, name: str) -> None:
    backbone, changed = models[name][2], ids()
    changed[:, -1] = (changed[:, -1] + 1) % V
    before, after = backbone(ids()), backbone(changed)
    # Experts multiply the tokens that come to them together, in sums of another order if there is one more of them.
    assert distance(after[:, :-1], before[:, :-1]) < 1e-6
    assert not torch.isclose(before[:, -1], after[:, -1]).all(-1).any()


@every_model
def test_written_again_every_tensor_is_the_same(models: Made, name: str) -> None:
    """Bit for bit, none left out and none added."""
    _, source, backbone = models[name]
    written = {}
    for entry in family_of(source.config).entries(backbone):
        written |= zip(entry.theirs, entry.split(backbone.state_dict()[entry.name]), strict=True)
    assert written.keys() == source.tensors.keys()
    assert all(torch.equal(tensor, source.tensors[their]) for their, tensor in written.items())


@every_model
@torch.no_grad()
def test_transformers_builds_the_same_model_from_the_config_we_write(models: Made, name: str) -> None:
    model, source, _ = models[name]
    family = family_of(source.config)
    config = family.config(family.settings(source.config))
    rebuilt = type(model)._from_config(type(model.config).from_dict(config), attn_implementation="eager").eval()
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt(ids()).logits, model(ids()).logits)


# What is special in a family, and a part of ours that does without it.
OFF: dict[str, dict[str, Any]] = {
    "gpt2": {"mlp.activation.approximate": "none"},
    "gpt2-untied": {"head.tied": True},
    "llama": {"attention.qkv_bias": False},
    "llama-3.1": {"attention.rotary": "lit_llm.backbone.rotary.Rotary"},
    "mistral": {"attention.window": None},
    "mixtral": {"experts.renormalize": False},
    "qwen2": {"attention.qkv_bias": False},
    "qwen2-window": {"pattern": "G"},
    "qwen3": {"attention.qk_norm": None},
    "qwen2_moe": {"experts.renormalize": True},
    "qwen3_moe": {"experts.renormalize": False},
    "gemma": {"embedding.scale": 1.0},
    "gemma2": {"head.softcap": None},
    "gemma3": {"local_attention.rotary.theta": 5e4},
    "phi": {"attention.rotary.fraction": 1.0},
    "phi3": {"attention.window": None},
    "gpt_neox": {"block": "lit_llm.backbone.gpt.Block"},
    "gpt_neox-sequential": {"block": "lit_llm.backbone.blocks.ParallelBlock"},
    "olmo2": {"block": "lit_llm.backbone.gpt.Block"},
    "olmo3": {"pattern": "G"},
    "smollm3": {"pattern": "L"},
}


@every_model
@torch.no_grad()
def test_without_what_is_special_logits_are_others(models: Made, name: str) -> None:
    """By more than three times of what parity allows; the two forms of GELU are that near each other."""
    model, source, _ = models[name]
    settings = family_of(source.config).settings(source.config)
    for path, value in OFF[name].items():
        *owners, last = path.split(".")
        part = settings["init_args"]
        for owner in owners:
            part = part[owner]["init_args"]
        part[last] = value
    assert distance(source.load(settings=settings)(ids()), model(ids()).logits) > 3e-5


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "model_type": ("llama", {"model_type": "rwkv"}, "model_type is 'rwkv'; known are gpt2, llama,"),
    "yarn": ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary scaling is 'yarn'"),
    "longrope": ("phi3", {"rope_scaling": {"rope_type": "longrope"}}, "rotary scaling is 'longrope'"),
    "dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rotary scaling is 'dynamic'"),
    "activation": ("llama", {"hidden_act": "relu2"}, "hidden_act is 'relu2'; known are silu"),
    "unknown key": ("llama", {"attention_sinks": 4}, "attention_sinks is 4, which is not known of a 'llama'"),
    "quantized": ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
    "layer type": ("olmo3", {"layer_types": ["linear_attention"] * 3}, "layer_types has 'linear_attention'"),
    "scale by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    "query-key norm": ("phi", {"qk_layernorm": True}, "qk_layernorm is True; only False"),
    "bidirectional": ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_known_is_refused_by_name(models: Made, what: str) -> None:
    name, changed, said = REFUSED[what]
    config = models[name][1].config | changed
    with pytest.raises(ValueError, match=said) as error:
        family_of(config).settings(config)
    assert "\n" not in str(error.value)


def test_a_missing_size_is_named(models: Made) -> None:
    config = {key: value for key, value in models["llama"][1].config.items() if key != "hidden_size"}
    with pytest.raises(ValueError, match="the config has no hidden_size, which a 'llama' needs"):
        family_of(config).settings(config)


def test_older_configs_say_the_same(models: Made) -> None:
    """`rope_theta` and `rope_scaling`, as before transformers 5."""
    config = dict(models["llama-3.1"][1].config)
    scaling = dict(config.pop("rope_parameters"))
    older = config | {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}
    family = family_of(older)
    assert family.settings(older) == family.settings(models["llama-3.1"][1].config)


def backbone_settings(pytestconfig: pytest.Config, name: str) -> dict[str, Any]:
    settings = yaml.safe_load((pytestconfig.rootpath / "configs" / "backbone" / f"{name}.yaml").read_text())
    settings["init_args"] |= {"vocab_size": 97, "block_size": 16}
    return settings


@pytest.mark.parametrize(("name", "kind"), [("nano", "gpt2"), ("llama_nano", "llama"), ("llama3_8b", "llama")])
def test_a_backbone_of_ours_finds_its_family(pytestconfig: pytest.Config, name: str, kind: str) -> None:
    assert family_for(backbone_settings(pytestconfig, name)).model_type == kind


def test_a_phi3_stays_one(models: Made) -> None:
    """It computes what a Mistral does, under names of its own: those that it came with are preferred."""
    config = models["phi3"][1].config
    settings = family_of(config).settings(config)
    assert family_for(settings).model_type == "mistral"
    assert family_for(settings, preferred="phi3").model_type == "phi3"


def test_a_backbone_of_no_family_is_refused_with_the_reason(pytestconfig: pytest.Config) -> None:
    settings = backbone_settings(pytestconfig, "nano")
    attention = {"class_path": "lit_llm.backbone.layers.CausalSelfAttention", "init_args": {"softcap": 3.0}}
    settings["init_args"]["attention"] = attention
    with pytest.raises(ValueError, match=r"nearest, 'gpt2', cannot say attention\.softcap 3\.0"):
        family_for(settings)


@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe"])
@torch.no_grad()
def test_experts_in_one_tensor_are_read_as_well(models: Made, name: str) -> None:
    """As transformers 5 holds them, (n_expert, rows, columns), under names of their own."""
    _, source, backbone = models[name]
    of_experts = {entry.name: entry for entry in family_of(source.config).entries(backbone) if "expert_" in entry.name}
    assert len(of_experts) == 4
    names = {"expert_fc": "gate_up_proj", "expert_proj": "down_proj"}
    single = {their: tensor for their, tensor in source.tensors.items() if ".experts." not in their}
    for own in of_experts:
        _, layer, _, part, _ = own.split(".")
        single[f"model.layers.{layer}.mlp.experts.{names[part]}"] = backbone.state_dict()[own]
    settings = family_of(source.config).settings(source.config)
    again = build(settings, "meta")
    fill(again, single.__getitem__, family_of(source.config).entries(again, single))
    assert torch.equal(again(ids()), backbone(ids()))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_rows_that_pad_the_vocabulary_stay_here(models: Made, name: str) -> None:
    """Tables are padded when they are read, which changes no logit, and as they were when they are written."""
    _, source, backbone = models[name]
    settings = family_of(source.config).settings(source.config)
    settings["init_args"]["vocab_multiple"] = 64
    padded = source.load(settings=settings)
    assert len(padded.embedding.tokens.weight) == 128
    assert distance(padded(ids()), backbone(ids())) < 1e-6
    assert padded(ids()).shape[-1] == V
    for entry in family_of(source.config).entries(padded):
        parts = entry.split(padded.state_dict()[entry.name])
        assert all(torch.equal(part, source.tensors[their]) for their, part in zip(entry.theirs, parts, strict=True))


@pytest.mark.parametrize("changed", [{"pattern": "GX"}, {"pattern": "GL"}, {"mlp_pattern": "E"}, {"pattern": ""}])
def test_patterns_of_layers_that_are_not_there(changed: dict[str, str]) -> None:
    """A letter of nothing, of a part that is not given, or none at all."""
    ((name, pattern),) = changed.items()
    with pytest.raises(ValueError, match=rf"^{name} '{pattern}' has the letter '[XLE ]'; a layer is "):
        GPT(V, 16, 2, 4, 24, **changed)  # type: ignore[arg-type]
