"""A plain pair of inputs and targets, as any DataLoader gives it, is a batch."""

import pytest
import torch
from python_runs import B, T, V, tiny_backbone, tiny_module, trainer
from torch.utils.data import DataLoader, TensorDataset

from lit_llm.batch import Batch, PreferenceBatch, TextBatch, as_batch
from lit_llm.modules import Classification, InstructionTuning


def pairs(targets: torch.Tensor) -> DataLoader:
    idx = torch.randint(V, (len(targets), T), generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(idx, targets), batch_size=B)


@pytest.mark.parametrize("make", [tiny_module, lambda: InstructionTuning(tiny_backbone())], ids=["words", "answers"])
def test_language_modeling_takes_pairs(make) -> None:
    """The loss of a validation is that of torch, over all tokens; training, test and prediction run as well."""
    loader, module = pairs(torch.randint(V, (2 * B, T), generator=torch.Generator().manual_seed(2))), make()
    run = trainer(max_steps=2, inference_mode=False)
    (values,) = run.validate(module, loader, verbose=False)
    idx, targets = loader.dataset.tensors
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(module.backbone(idx).flatten(0, 1), targets.flatten())
    assert values["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    run.fit(module, loader, loader)
    run.test(module, loader, verbose=False)
    assert [part.shape for part in run.predict(module, loader)] == [(B, T), (B, T)]


def test_classification_takes_pairs() -> None:
    """Each text fills its row."""
    loader = pairs(torch.arange(2 * B) % 3)
    module, run = Classification(tiny_backbone(), ["a", "b", "c"]), trainer(max_steps=2)
    (values,) = run.validate(module, loader, verbose=False)
    idx, targets = loader.dataset.tensors
    with torch.no_grad():
        logits = module.head(module.backbone.hidden_states(idx)[:, -1])
    assert values["val/loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)), rel=1e-5)
    run.fit(module, loader, loader)
    run.test(module, loader, verbose=False)
    assert [len(part["id"]) for part in run.predict(module, loader)] == [B, B]


def test_what_is_a_batch() -> None:
    """Lists as well as tuples; named batches stay as they are, and anything else is refused."""
    idx, targets = torch.zeros(2, 3).long(), torch.ones(2).long()
    whole = as_batch([idx, targets], TextBatch)
    assert [part.tolist() for part in whole] == [[[0] * 3] * 2, [1, 1], [3, 3], [0, 1]]
    assert as_batch(whole, Batch) is whole
    for wrong, kind in ((idx, Batch), ((idx,), Batch), ((idx, "x"), TextBatch), ((idx, idx), PreferenceBatch)):
        with pytest.raises(ValueError, match=f"a batch must be a {kind.__name__}"):
            as_batch(wrong, kind)
