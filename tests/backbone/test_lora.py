"""Adapters: the names stay, the start changes nothing, peft computes the same, and merged is equal to unmerged."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.experts import Experts
from lit_llm.backbone.lora import LoRA, LoRALinear, adapted_layers, adapter_names, merge

B, T, C, H, V, LAYERS = 2, 7, 24, 4, 97, 3
KINDS = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "both": {"rslora": True, "dora": True},
}
CLOSE = 1e-5  # of outputs near 1: sums in another order


def gpt(**settings) -> GPT:
    torch.manual_seed(0)
    return GPT(V, T, LAYERS, H, C, **settings)


def shaken(module: nn.Module) -> None:
    """Adapters that have learned something: from the start B is zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.rpartition(".")[2] in ("lora_a", "lora_b", "lora_magnitude"):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)


def idx() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_begin_without_a_change(kind) -> None:
    """Names, values and outputs are those of before, and what is new has names of its own."""
    plain, adapted = gpt(), gpt()
    LoRA(rank=3, targets=["*"], **KINDS[kind]).adapt(adapted)
    assert len(list(adapted_layers(adapted))) == 4 * LAYERS
    before, after = plain.state_dict(), adapted.state_dict()
    assert set(after) - set(before) == adapter_names(adapted)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.allclose(plain(idx()), adapted(idx()), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_unmerged(kind) -> None:
    """And what is left is a plain GPT, whose weights fit one that never had adapters."""
    adapted = gpt()
    LoRA(rank=3, alpha=5, targets=["attention", "mlp.fc"], **KINDS[kind]).adapt(adapted)
    shaken(adapted)
    logits = adapted(idx())
    assert not torch.allclose(logits, gpt()(idx()), atol=1e-2)
    merge(adapted)
    assert not any(isinstance(part, LoRALinear) for part in adapted.modules())
    plain = gpt()
    plain.load_state_dict(adapted.state_dict())
    assert torch.allclose(plain(idx()), logits, atol=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_peft_computes_the_same(kind, bias) -> None:
    """Outputs, gradients and merged weights, once A, B and the magnitudes are copied."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(2)
    layer = nn.Linear(5, 7, bias=bias)
    settings = KINDS[kind]
    flags = {"use_rslora": settings.get("rslora", False), "use_dora": settings.get("dora", False)}
    config = peft.LoraConfig(r=3, lora_alpha=4, target_modules=["0"], lora_dropout=0.0, **flags)
    own = LoRALinear(nn.Linear(5, 7, bias=bias), LoRA(rank=3, alpha=4, **settings))
    own.load_state_dict(layer.state_dict(), strict=False)
    own.reset_magnitude()
    shaken(own)
    theirs = peft.get_peft_model(nn.Sequential(layer), config)
    inner = theirs.base_model.model[0]
    with torch.no_grad():
        inner.lora_A["default"].weight.copy_(own.lora_a)
        inner.lora_B["default"].weight.copy_(own.lora_b)
        if own.lora_magnitude is not None:
            inner.lora_magnitude_vector["default"].weight.copy_(own.lora_magnitude)
    x = torch.randn(4, 5)
    ours, other = own(x), theirs(x)
    assert torch.allclose(ours, other, atol=CLOSE)
    ours.square().sum().backward()
    other.square().sum().backward()
    assert torch.allclose(own.lora_a.grad, inner.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(own.lora_b.grad, inner.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-4)
    if own.lora_magnitude is not None:
        gradient = inner.lora_magnitude_vector["default"].weight.grad
        assert torch.allclose(own.lora_magnitude.grad, gradient, rtol=1e-4, atol=1e-4)
    assert torch.allclose(own.merged().weight, theirs.merge_and_unload()[0].weight, atol=CLOSE)


def test_scale_and_start_are_those_of_the_papers() -> None:
    assert LoRA(rank=4, alpha=6).scale == 1.5
    assert LoRA(rank=4, alpha=6, rslora=True).scale == 3
    layer = LoRALinear(nn.Linear(11, 13), LoRA(rank=5))
    assert not layer.lora_b.any()
    assert 0 < layer.lora_a.abs().max() <= 1 / math.sqrt(11)
    assert (layer.lora_a.shape, layer.lora_b.shape) == ((5, 11), (13, 5))


def test_dropout_reaches_the_adapter_alone() -> None:
    """In training two passes differ by the change; in eval mode, or without a change, they do not."""
    layer = LoRALinear(nn.Linear(11, 13), LoRA(rank=5, dropout=0.5))
    x = torch.randn(3, 11)
    assert torch.equal(layer(x), layer(x))
    shaken(layer)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_backbone_of_the_meta_device_can_be_filled_later() -> None:
    """`to_empty` and `init_weights` are enough, as without adapters."""
    with torch.device("meta"):
        made = gpt()
        LoRA(rank=3, dora=True).adapt(made)
    made.to_empty(device="cpu")
    made.init_weights()
    norms = {name: layer.weight.norm(dim=1) for name, layer in adapted_layers(made)}
    assert all(torch.allclose(layer.lora_magnitude, norms[name]) for name, layer in adapted_layers(made))
    assert made(idx()).isfinite().all()


def test_patterns_choose_layers() -> None:
    def chosen(*targets: str) -> list[str]:
        backbone = gpt()
        LoRA(rank=3, targets=list(targets)).adapt(backbone)
        return [name.removeprefix("blocks.") for name, _ in adapted_layers(backbone)]

    assert chosen("attention.qkv") == [f"{i}.attention.qkv" for i in range(LAYERS)]
    assert chosen("blocks.2.mlp") == ["2.mlp.fc", "2.mlp.proj"]
    assert chosen("*.proj", "mlp.proj") == [f"{i}.{part}.proj" for i in range(LAYERS) for part in ("attention", "mlp")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"targets": ["attention.q_proj"]},
            "'attention.q_proj' matches no linear layer of the blocks; there are ",
        ),
        ({"targets": ["norm_1"]}, "'norm_1' matches no linear layer"),
        ({"targets": ["mlp"]}, "'mlp' matches 'blocks.0.mlp.expert_fc', which has the stacked matrices of experts"),
        ({"rank": 0}, "lora.rank 0 cannot be: it is at least 1"),
        ({"alpha": -1.0}, "lora.alpha -1.0 cannot be"),
        ({"alpha": math.nan}, "lora.alpha nan cannot be"),
        ({"dropout": 1.0}, "lora.dropout 1.0 is not a probability"),
    ],
)
def test_refusals(settings, message) -> None:
    experts = partial(Experts, hidden=5, n_expert=3)
    with pytest.raises(ValueError, match=message):
        LoRA(**settings).adapt(gpt(experts=experts, mlp_pattern="E"))
    adapted = gpt()
    LoRA().adapt(adapted)
    with pytest.raises(ValueError, match=r"'attention.qkv' matches 'blocks.0.attention.qkv', which has adapters"):
        LoRA().adapt(adapted)
