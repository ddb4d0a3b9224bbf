"""The loss that makes its own logits, beside torch's plain one."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lit_llm.batch import IGNORE_INDEX
from lit_llm.training import losses
from lit_llm.training.losses import HeadLoss, LinearCrossEntropy

N, C, V = 11, 6, 23


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, C, generator=generator).to(dtype).requires_grad_() for rows in (N, V))
    targets = torch.randint(V, (N,), generator=generator)
    targets[[0, 4, 5]] = IGNORE_INDEX
    return hidden, weight, targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, **settings: Any) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum", **settings)


def with_gradients(loss: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Of a third of it: a module divides by the targets of a step."""
    total = loss(hidden, weight, targets)
    return total.detach(), *torch.autograd.grad(total / 3, (hidden, weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("chunk_size", [1, 4, N, 512])
def test_equals_the_plain_loss(chunk_size: int, smoothing: float) -> None:
    """N9: with targets that carry no loss, and with label smoothing."""
    found = with_gradients(LinearCrossEntropy(chunk_size, smoothing), *inputs())
    expected = with_gradients(lambda *x: plain(*x, label_smoothing=smoothing), *inputs())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # fp32, sums in another order


def test_no_targets_cost_nothing() -> None:
    """0 and gradients of 0, where a mean would be NaN."""
    hidden, weight, targets = inputs()
    found = with_gradients(LinearCrossEntropy(4), hidden, weight, torch.full_like(targets, IGNORE_INDEX))
    assert [float(tensor.abs().sum()) for tensor in found] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16 tensors", "autocast"])
def test_bfloat16_rounds_products_alone(autocast: bool) -> None:
    """The loss is that of bfloat16 logits to fp32's precision, and gradients come in their parameters' dtype."""
    hidden, weight, targets = inputs(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = with_gradients(LinearCrossEntropy(4), hidden, weight, targets)
        expected = with_gradients(plain, hidden, weight, targets)
    assert found[0].dtype == torch.float32
    assert [gradient.dtype for gradient in found[1:]] == [hidden.dtype, weight.dtype]
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert (ours - theirs).abs().max() < 0.01 * theirs.abs().max()  # 8 bits


def test_logits_never_stand_in_memory_at_once() -> None:
    """The largest single allocation of loss and gradients is that of the matrix's gradient; all logits were larger."""
    rows, width, vocabulary = 512, 4, 1031
    hidden, weight = torch.randn(rows, width, requires_grad=True), torch.randn(vocabulary, width, requires_grad=True)
    targets = torch.randint(vocabulary, (rows,))

    def largest(loss: Any) -> int:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            loss(hidden, weight, targets).backward()
        return max(event.self_cpu_memory_usage for event in profiled.events())

    chunk = 16 * vocabulary * 4  # bytes
    assert largest(LinearCrossEntropy(16)) <= chunk
    assert largest(plain) >= 32 * chunk


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_padded_matrix_changes_nothing(monkeypatch: pytest.MonkeyPatch, smoothing: float) -> None:
    """As on a GPU: to a multiple of 64 rows, which are no words."""
    assert [len(losses._padded(torch.empty(50257, 2, device=device))) for device in ("cpu", "meta")] == [50257, 50304]
    expected = with_gradients(LinearCrossEntropy(4, smoothing), *inputs())
    monkeypatch.setattr(losses, "_padded", lambda matrix: F.pad(matrix, (0, 0, 0, 41)))
    torch.testing.assert_close(with_gradients(LinearCrossEntropy(4, smoothing), *inputs()), expected)


def test_a_frozen_matrix_gets_no_gradient() -> None:
    hidden, weight, targets = inputs()
    (found,) = torch.autograd.grad(LinearCrossEntropy(4)(hidden, weight.detach(), targets), hidden)
    torch.testing.assert_close(found, torch.autograd.grad(plain(hidden, weight, targets), hidden)[0])


def test_a_second_backward_pass_is_an_error() -> None:
    """The first one has scaled the gradients in place; another number would be wrong in silence."""
    total = LinearCrossEntropy(4)(*inputs())
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        total.backward()


def test_nan_shows() -> None:
    hidden, weight, targets = inputs()
    with torch.no_grad():
        hidden[1, 0] = math.nan
    assert LinearCrossEntropy(4)(hidden, weight, targets).isnan()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"chunk_size": 0}, "chunk_size 0 cannot be"), ({"label_smoothing": 1.5}, "label_smoothing 1.5 is no share")],
)
def test_refuses_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearCrossEntropy(**settings)
    assert issubclass(LinearCrossEntropy, HeadLoss)
