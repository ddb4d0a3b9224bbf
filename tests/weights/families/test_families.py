"""Every family: the same logits as `transformers`, the same tensors and an equal config when written again."""

from typing import Any

import pytest
import torch
from tiny_pretrained import MODELS, Source, ids, make
from torch import Tensor

from lit_llm.weights.families import FAMILIES, family_for, family_of

every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Source]]:
    made = {}
    for name in MODELS:
        folder = tmp_path_factory.mktemp(name)
        model = make(name)
        model.save_pretrained(folder)
        made[name] = model, Source(folder)
    return made


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Of logits, as a share of the largest one."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_every_family_is_here() -> None:
    assert {family_of({"model_type": kind}).model_type for kind in FAMILIES} == set(FAMILIES)


@every_model
@torch.no_grad()
def test_logits_are_those_of_transformers(models: Any, name: str) -> None:
    """In fp32 to 1e-5 of their scale; the input is longer than the windows."""
    model, source = models[name]
    assert distance(source.load()(ids()), model(ids()).logits) < 1e-5


@every_model
def test_written_again_every_tensor_is_the_same(models: Any, name: str) -> None:
    """Bit for bit, none left out and none added."""
    source = models[name][1]
    backbone, family = source.load(), family_of(source.config)
    written = {}
    for entry in family.entries(backbone, source.tensors):
        written |= zip(entry.theirs, entry.split(backbone.state_dict()[entry.name]), strict=True)
    assert written.keys() == source.tensors.keys()
    assert all(torch.equal(tensor, source.tensors[their]) for their, tensor in written.items())


@every_model
@torch.no_grad()
def test_transformers_builds_the_same_model_from_the_config_we_write(models: Any, name: str) -> None:
    model, source = models[name]
    family, settings = family_of(source.config), family_of(source.config).settings(source.config)
    config = family.config(settings)
    rebuilt = type(model)._from_config(type(model.config).from_dict(config), attn_implementation="eager").eval()
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt(ids()).logits, model(ids()).logits)
    assert family_for(settings, preferred=family.model_type) is family
