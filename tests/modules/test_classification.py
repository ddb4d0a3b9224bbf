"""The classifier: what its answer depends on, how its loss is weighted, its scores, its threshold."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from python_runs import Call, tiny_backbone, trainer
from text_runs import BLOCK, TinyTexts, pad, tiny_classification
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_llm.backbone.layers import Head
from lit_llm.backbone.pooling import FirstToken, LastToken, MeanTokens
from lit_llm.batch import IGNORE_INDEX, TextBatch
from lit_llm.modules.classification_metrics import Answers, Collected, best_threshold, mean_loss

NAMES3 = ["ham", "spam", "ads"]
LONG = 80  # positions, for 50 pads


def some_rows(count: int = 8) -> list[list[int]]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randint(256, (length,), generator=draw).tolist() for length in (7, 1, 19, 12, 3, 28, 5, 9)[:count]]


@pytest.mark.parametrize("pooling", [LastToken, FirstToken, MeanTokens])
def test_neither_padding_nor_neighbours_change_the_answer(pooling) -> None:
    """50 pads, or 7 neighbours, move no logit by more than 1e-5 in fp32, of logits that differ by much more."""
    module = tiny_classification(backbone=tiny_backbone(4.0, block_size=LONG), pooling=pooling).eval()
    rows = some_rows()
    with torch.no_grad():
        alone = torch.cat([module(pad([row], [0])) for row in rows])
        padded = torch.cat([module(pad([row], [0], pads=50)) for row in rows])
        together = module(pad(rows, [0] * 8))
    assert alone.std(dim=0).min() > 1e-2
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_last_column_would_depend_on_padding() -> None:
    """The book's way, the last position whatever stands there: the test above can tell."""

    class LastColumn(nn.Module):
        def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
            return hidden[:, -1]

    module = tiny_classification(backbone=tiny_backbone(4.0, block_size=LONG), pooling=LastColumn).eval()
    row = some_rows()[0]
    assert (module(pad([row], [0], pads=50)) - module(pad([row], [0]))).abs().max() > 1e-3


def test_no_logits_over_the_vocabulary(monkeypatch) -> None:
    """They are never computed, and an output table that nothing reads does not train."""
    module = tiny_classification(backbone=tiny_backbone(head=partial(Head, tied=False), block_size=BLOCK))
    monkeypatch.setattr(module.backbone, "logits", None)
    monkeypatch.setattr(module.backbone.head, "forward", None)
    batch = pad(some_rows(3), [0, 1, 0])
    module.weighted_loss(module(batch), batch.targets)[0].backward()
    assert {name for name, p in module.named_parameters() if p.grad is None} == {"backbone.head.linear.weight"}
    assert "backbone.head.linear.weight" not in module.stages.ever
    assert float(module.head.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert module.head.bias is None


WEIGHTS = [0.02, 0.3, 0.11]  # whose sum over a batch may be below 1
TARGETS = [0, 2, 1, IGNORE_INDEX, 0, 0, 2, 0]


def gradients(folder, module: LightningModule, batch_size: int, ranks: int) -> list[Tensor]:
    """Those of one optimizer step over eight texts, in batches of so many."""

    def keep(trainer, module, optimizer) -> None:
        if trainer.is_global_zero:
            torch.save([p.grad for p in module.parameters() if p.requires_grad], folder / "gradients.pt")

    rows = some_rows()
    batches = [pad(rows[at : at + batch_size], TARGETS[at : at + batch_size]) for at in range(0, 8, batch_size)]
    run = trainer(
        max_steps=1,
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",
        accumulate_grad_batches=len(batches) // ranks,
        limit_val_batches=0,
        callbacks=[Call("on_before_optimizer_step", keep)],
    )
    loader = DataLoader(batches, batch_size=None)
    run.fit(module, loader, loader)
    return torch.load(folder / "gradients.pt")


@pytest.mark.parametrize(("batch_size", "ranks"), [(8, 1), (2, 1), (1, 1), (2, 2)])
def test_weights_of_classes_are_those_of_a_weighted_mean(tmp_path, batch_size, ranks) -> None:
    """Torch's own weighted mean over all texts of a step, however batches and ranks divide them, to rounding."""
    backbone = partial(tiny_backbone, 4.0, block_size=LONG)
    module = tiny_classification(backbone=backbone(), class_names=NAMES3, class_weights=WEIGHTS)
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(1))
    start = {name: value.clone() for name, value in module.state_dict().items()}
    found = gradients(tmp_path, module, batch_size, ranks)
    hand = tiny_classification(backbone=backbone(), class_names=NAMES3)
    hand.load_state_dict(start)
    batch = pad(some_rows(), TARGETS)
    F.cross_entropy(hand(batch), batch.targets, torch.tensor(WEIGHTS)).backward()
    expected = [p.grad for p in hand.parameters() if p.requires_grad]
    one, two = (torch.cat([g.flatten() for g in both]) for both in (found, expected))
    assert float((one - two).norm() / two.norm()) < 1e-5  # sums of fp32 in another order


def test_loss_by_hand() -> None:
    """ln 2 and ln(1 + e^2), each times the weight of its class; a text of no class counts nothing."""
    module = tiny_classification(class_weights=[0.5, 3.0])
    logits = torch.tensor([[1.0, 1.0], [2.0, 0.0], [5.0, 5.0]])
    total, weight = module.weighted_loss(logits, torch.tensor([0, 1, IGNORE_INDEX]))
    assert float(total) == pytest.approx(0.5 * 0.693147 + 3 * 2.126928, abs=1e-5)
    assert float(weight) == 3.5
    total, weight = module.weighted_loss(logits[:0], torch.tensor([], dtype=torch.long))
    assert (float(total), float(weight)) == (0, 0)


class Sum(nn.Module):
    """A loss of one's own that is already a sum."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, reduction="sum")


def test_a_loss_that_is_a_sum() -> None:
    logits, targets = torch.randn(5, 2), torch.tensor([0, 1, 1, IGNORE_INDEX, 0])
    sums = tiny_classification(loss=Sum).weighted_loss(logits, targets)
    torch.testing.assert_close(sums, tiny_classification().weighted_loss(logits, targets))
    with pytest.raises(ValueError, match="Sum gives one loss for all texts, which class_weights cannot weigh"):
        tiny_classification(loss=Sum, class_weights=[1.0, 2.0]).weighted_loss(logits, targets)


def test_balanced_weights(tmp_path) -> None:
    """Texts / (classes * texts of the class): all classes weigh the same together; they travel with the checkpoint."""
    data, module = TinyTexts(), tiny_classification(class_weights="balanced")
    run = trainer(max_steps=5)  # to the end of an epoch
    run.fit(module, data)
    counts = torch.tensor(data.class_counts("train"))
    assert (counts > 0).all()
    assert counts[0] != counts[1]
    torch.testing.assert_close(module.class_weights * counts, torch.full((2,), counts.sum() / 2))
    run.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(stored["class_weights"], module.class_weights)
    again = tiny_classification(class_weights=[2.0, 7.0])  # what the config says wins over the checkpoint
    trainer(max_steps=6).fit(again, data, ckpt_path=tmp_path / "a.ckpt")
    assert again.class_weights.tolist() == [2, 7]
    few = TinyTexts(count=2, names=tuple(NAMES3))
    with pytest.raises(ValueError, match="class_weights balanced cannot be: no training text is of the class 'ads'"):
        trainer().fit(tiny_classification(class_names=NAMES3, class_weights="balanced"), few)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"class_names": ["one"]}, "at least two, and all differ"),
        ({"class_names": ["a", "a"]}, r"\['a', 'a'\] cannot be"),
        ({"class_weights": [1.0]}, r"class_weights \[1.0\] cannot be: they are 2 numbers"),
        ({"class_weights": [1.0, -1.0]}, "none of them negative"),
        ({"class_weights": [0.0, 0.0]}, "not all 0"),
        ({"class_weights": [1.0, float("nan")]}, "nan"),
    ],
)
def test_refusals(settings, words) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_classification(**settings)


def test_the_threshold_travels_and_decides(tmp_path) -> None:
    """Chosen at the end of a validation, kept in the checkpoint, used in test and predict; val/… go by 0.5."""
    data, module = TinyTexts(), tiny_classification()
    run = trainer(max_steps=5)
    run.fit(module, data)
    p = module.validated.probabilities[:, 1]
    assert float(module.threshold) == pytest.approx(float(best_threshold(p, module.validated.targets)))
    assert float(run.callback_metrics["val/threshold"]) == float(module.threshold)
    module.threshold.fill_(0.0)  # every text is then of the second class
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = tiny_classification()
    values = trainer().test(again, data, ckpt_path=tmp_path / "a.ckpt", verbose=False)[0]
    assert values["test/balanced_accuracy"] == 0.5
    assert {label for part in trainer().predict(again, data) for label in part["label"]} == {"spam"}
    validated = trainer().validate(again, data, verbose=False)[0]
    assert validated["val/accuracy"] == run.callback_metrics["val/accuracy"]
    assert float(again.threshold) == 0  # a validation alone chooses nothing


def test_three_classes() -> None:
    """All of it, with the most probable class; no threshold, and each class has its column."""
    data = TinyTexts(names=tuple(NAMES3))
    module = tiny_classification(class_names=NAMES3)
    run = trainer(max_steps=5)
    run.fit(module, data)
    assert module.threshold is None
    names = ("loss", "accuracy", "balanced_accuracy", "f1", "auroc", "average_precision", "calibration_error")
    assert {f"val/{name}" for name in names} <= run.callback_metrics.keys()
    assert trainer().test(module, data, verbose=False)[0].keys() == {f"test/{name}" for name in names}
    part = trainer().predict(module, data)[0]
    assert list(part) == ["id", "label", "p_ham", "p_spam", "p_ads"]
    best = torch.tensor([part[f"p_{name}"] for name in NAMES3]).argmax(0)
    assert part["label"] == [NAMES3[number] for number in best]


def test_validation_loss_is_that_of_each_text() -> None:
    """Plain cross-entropy whatever the weights; texts of no class are left out; nothing at all is no error."""
    collected = Collected(2)
    logits, targets = torch.randn(6, 2), torch.tensor([0, 1, IGNORE_INDEX, 1, 0, 0])
    collected.update(logits[:4], targets[:4])
    collected.update(logits[4:], targets[4:])
    answers = collected.compute()
    assert float(mean_loss(answers)) == pytest.approx(float(F.cross_entropy(logits, targets)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics' own, of a compute before any update
        assert isinstance(Collected(2).compute(), Answers)


def test_it_learns() -> None:
    """Words decide, and few steps suffice."""
    module = tiny_classification(optimizer=partial(torch.optim.AdamW, lr=0.01), dropout=0.1)
    run = trainer(max_steps=100, check_val_every_n_epoch=5)
    run.fit(module, TinyTexts(count=80))
    assert float(run.callback_metrics["val/auroc"]) > 0.9


def test_one_class_in_validation() -> None:
    """A run goes through, without a warning, and leaves the threshold alone."""
    module = tiny_classification()
    run = trainer(max_steps=5)
    run.fit(module, TinyTexts(only="ham"))
    assert "val/accuracy" in run.callback_metrics
    assert float(module.threshold) == 0.5
    assert "val/auroc" not in run.callback_metrics


def test_batches_are_of_the_contract() -> None:
    assert isinstance(next(iter(TinyTexts().train_dataloader())), TextBatch)


def test_scores_tell_sure_answers_apart() -> None:
    """Probabilities that fp32 rounds to 1 are not tied in the areas under curves."""
    logged: dict[str, float] = {}
    logits = torch.tensor([[0.0, surer] for surer in (18.0, 19.0, 20.0, 22.0, 25.0)])
    module = tiny_classification()
    module.log = lambda name, value, **how: logged.update({name: float(value)})  # type: ignore[method-assign,assignment]
    module._log_scores("val", Answers(logits, torch.tensor([0, 0, 1, 1, 1])), None)
    assert logged["val/auroc"] == 1
