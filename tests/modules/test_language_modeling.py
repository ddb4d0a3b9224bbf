"""Next-token training: what is learnt from, and what the numbers under val/ mean."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from python_runs import B, Call, T, V, tiny_backbone, tiny_data, tiny_module, trainer
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.context import Context
from lit_llm.backbone.layers import Head
from lit_llm.batch import IGNORE_INDEX, Batch, PackedBatch
from lit_llm.data.pretraining import Pretraining
from lit_llm.data.tokenizer import Characters
from lit_llm.training.losses import LinearCrossEntropy


def tokens(data: Pretraining, split: str) -> Tensor:
    return torch.from_numpy(data.corpus.tokens(split).astype("int64"))


@torch.no_grad()
def by_hand(backbone: GPT, ids: Tensor) -> list[Tensor]:
    """Losses of the tokens of a text, window by window, each token after the first once."""
    windows = [(ids[start : start + T], ids[start + 1 : start + T + 1]) for start in range(0, len(ids) - 1, T)]
    return [-backbone(idx[None, : len(y)])[0].log_softmax(-1)[range(len(y)), y] for idx, y in windows]


def score(module: nn.Module, data: Pretraining, split: str = "val") -> dict[str, float]:
    """What Lightning logs for a split."""
    run = trainer().validate if split == "val" else trainer().test
    return run(module, data, verbose=False)[0]  # type: ignore[operator]


def test_uniform_logits_cost_ln_v(tmp_path) -> None:
    """N6: a model that knows nothing; the tolerance is that of fp32."""
    backbone, seen = tiny_backbone(scale=0.0), []
    module, data = tiny_module(backbone=backbone), tiny_data(tmp_path)
    values = score(module, data)
    assert values["val/loss"] == pytest.approx(math.log(V), abs=1e-5)
    assert values["val/perplexity"] == pytest.approx(V, rel=1e-5)
    watch = Call("on_train_batch_end", lambda trainer, module, outputs, *_: seen.append(float(outputs["loss"])))
    trainer(max_steps=1, limit_val_batches=0, callbacks=[watch]).fit(module, data)
    assert seen == [pytest.approx(math.log(V), abs=1e-5)]


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("batch_size", [B, 4])
def test_loss_is_one_plain_pass_over_the_text(tmp_path, split, batch_size) -> None:
    """N6: each held-out token once and with the same weight, however the text falls into batches; the last is ragged.

    The perplexity is exp of that mean. A mean over batches, or of perplexities, would be another number.
    """
    backbone = tiny_backbone(scale=6.0)
    data = tiny_data(tmp_path, batch_size=batch_size, test_fraction=0.2)
    values = score(tiny_module(backbone=backbone), data, split)
    windows = by_hand(backbone.eval(), tokens(data, split))
    assert len(windows[-1]) < T
    assert len(windows) % batch_size
    losses = torch.cat(windows)
    assert len(losses) == len(tokens(data, split)) - 1
    mean = losses.double().mean().item()
    assert values[f"{split}/loss"] == pytest.approx(mean, rel=1e-6)
    assert values[f"{split}/perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert all(name.startswith(f"{split}/") for name in values)

    batches = [torch.cat(windows[i : i + batch_size]).mean() for i in range(0, len(windows), batch_size)]
    assert abs(torch.stack(batches).mean().item() / mean - 1) > 1e-4  # the test can tell
    assert abs(torch.stack(batches).exp().mean().item() / math.exp(mean) - 1) > 1e-4


def test_bits_per_byte(tmp_path) -> None:
    """The loss in bits, spread over the bytes of the text: with characters of two bytes it is less than a token's."""
    (tmp_path / "text.txt").write_text("überall größere Bären, schön müde; ä" * 30, encoding="utf-8")
    data = tiny_data(tmp_path, tokenizer=Characters())
    data.prepare_data()
    module = tiny_module(backbone=tiny_backbone(vocab_size=data.vocab_size))
    values, ids = score(module, data), tokens(data, "val").tolist()
    size = len(data.tokenizer.decode_bytes(ids))
    assert size > len(ids)
    bits = values["val/loss"] / math.log(2)
    assert values["val/bits_per_byte"] == pytest.approx(bits * len(ids) / size, rel=1e-6)
    # Where nothing is known of bytes, nothing is said of them.
    loader = data.val_dataloader()
    assert trainer().validate(module, loader, verbose=False)[0].keys() == {"val/loss", "val/perplexity"}


def test_the_loss_of_the_config_trains_and_is_not_what_is_reported(tmp_path) -> None:
    """Training follows the injected loss; val/loss stays cross-entropy, so that runs can be compared."""
    smooth = partial(nn.CrossEntropyLoss, label_smoothing=0.3)
    module, data, seen = tiny_module(backbone=tiny_backbone(6.0), loss=smooth), tiny_data(tmp_path), []
    assert score(module, data) == score(tiny_module(backbone=tiny_backbone(6.0)), data)

    @torch.no_grad()
    def expect(trainer, module, batch, batch_idx) -> None:
        logits, targets = module.backbone(batch.idx).flatten(0, 1), batch.targets.flatten()
        seen.append([float(F.cross_entropy(logits, targets, label_smoothing=s)) for s in (0.3, 0.0)])

    watch = Call("on_train_batch_end", lambda trainer, module, outputs, *_: seen[-1].append(float(outputs["loss"])))
    trainer(limit_val_batches=0, callbacks=[Call("on_train_batch_start", expect), watch]).fit(module, data)
    assert len(seen) == 3
    assert all(trained == pytest.approx(smoothed, rel=1e-6) for smoothed, _, trained in seen)
    assert all(abs(trained / plain - 1) > 1e-4 for _, plain, trained in seen)  # the test can tell


def test_predictions_are_log_probabilities(tmp_path) -> None:
    """One for each target of the validation text, in its order; 0 where a row is filled up."""
    backbone, data = tiny_backbone(scale=6.0), tiny_data(tmp_path)
    predictions = trainer().predict(tiny_module(backbone=backbone), data)
    wanted = torch.cat(by_hand(backbone.eval(), tokens(data, "val")))
    assert {batch.shape[1] for batch in predictions} == {T}
    flat = torch.cat(predictions).flatten()
    assert len(wanted) < len(flat) < len(wanted) + T
    torch.testing.assert_close(flat[: len(wanted)], -wanted, rtol=1e-5, atol=1e-6)  # fp32, other shapes of batches
    assert not flat[len(wanted) :].any()


def test_targets_without_a_loss_count_nowhere() -> None:
    """Neither in a training step nor in a prediction, whatever stands there."""
    module = tiny_module(backbone=tiny_backbone(6.0)).eval()
    idx, targets = torch.randint(V, (2, 2, T), generator=torch.Generator().manual_seed(1))
    targets[0, 2:], targets[1, 0] = IGNORE_INDEX, IGNORE_INDEX
    kept = targets != IGNORE_INDEX
    with torch.no_grad():
        loss = module.loss(module(Batch(idx, targets)).flatten(0, 1), targets.flatten())
        predicted = module.predict_step(Batch(idx, targets), 0)
    assert torch.equal(predicted != 0, kept)
    torch.testing.assert_close(loss, -predicted[kept].sum())


def test_packed_documents_do_not_see_each_other() -> None:
    """A row of two documents scores the second as if it stood alone; without the border it is another number."""
    module = tiny_module(backbone=tiny_backbone(6.0)).eval()
    first, second = (torch.randint(V, (2, T), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    border, documents = 3, torch.tensor([0, 0, 0, 1, 1, 1, 1]).expand(2, T)
    other = torch.cat((second[:, :border], first[:, border:]), dim=1)  # the first document is another one
    with torch.no_grad():
        packed, changed = (module(PackedBatch(idx, idx, documents)) for idx in (first, other))
        alone = module(Batch(first[:, border:], first[:, border:]))
        assert torch.equal(packed, module.backbone(first, Context(documents)))
        assert torch.equal(packed[:, border:], changed[:, border:])
        torch.testing.assert_close(packed[:, border:], alone, rtol=1e-5, atol=1e-5)  # other shapes, other sums
        assert not torch.allclose(module(Batch(first, first))[:, border:], alone, atol=1e-2)


def test_masked_documents_from_the_data_to_the_loss(tmp_path) -> None:
    """mask_documents reaches training and validation: the text scores otherwise, and still trains."""
    (tmp_path / "many").mkdir()
    for number in range(40):
        (tmp_path / "many" / f"{number}.txt").write_text(f"document {number}")
    plain, masked = (tiny_data(tmp_path, source=str(tmp_path / "many"), mask_documents=m) for m in (False, True))
    scores = [score(tiny_module(backbone=tiny_backbone(6.0)), data)["val/loss"] for data in (plain, masked)]
    assert abs(scores[0] / scores[1] - 1) > 1e-3
    module = tiny_module(backbone=tiny_backbone())
    trainer(max_steps=40, limit_val_batches=0).fit(module, masked)
    assert score(module, masked)["val/loss"] < 5 < math.log(V)


def test_nan_shows(tmp_path) -> None:
    """A loss that is NaN at one position in seven makes val/loss NaN; leaving it out would hide a broken model."""
    backbone = tiny_backbone()
    with torch.no_grad():
        backbone.embedding.positions.weight[T - 1] = math.nan  # causal: no other position sees the last one
    values = score(tiny_module(backbone=backbone), tiny_data(tmp_path))
    assert math.isnan(values["val/loss"])
    assert math.isnan(values["val/perplexity"])


class OwnHead(Head):
    """Which may do anything."""


def test_a_head_that_does_more_than_multiply_refuses_to_be_part_of_a_loss() -> None:
    """Before anything is trained; and the sentence says what to choose."""
    for head, what in ((partial(Head, softcap=30.0), "a soft cap of 30.0"), (OwnHead, "a OwnHead")):
        with pytest.raises(ValueError, match=f"head has {what}, .* choose --model.loss torch.nn.CrossEntropyLoss"):
            tiny_module(backbone=tiny_backbone(head=head), loss=LinearCrossEntropy)
        assert tiny_module(backbone=tiny_backbone(head=head))


def test_packed_documents_reach_a_loss_that_makes_its_own_logits() -> None:
    idx, documents = torch.arange(T).expand(2, T), torch.tensor([0, 0, 0, 1, 1, 1, 1]).expand(2, T)
    totals = [
        tiny_module(backbone=tiny_backbone(6.0), loss=loss).total_loss(batch)
        for batch in (PackedBatch(idx, idx, documents), Batch(idx, idx))
        for loss in (LinearCrossEntropy, nn.CrossEntropyLoss)
    ]
    torch.testing.assert_close(totals[0::2], totals[1::2])
    assert abs(totals[0] - totals[2]) > 1e-2
