"""What a run writes down beside learning, under which names, and that learning does not notice."""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import call, events, losses, run_folders, same, weights, write_tiny
from lightning import Callback
from python_runs import B, Call, T, tiny_backbone, tiny_data, tiny_module, trainer

from lit_llm.__main__ import main
from lit_llm.data.tokenizer import Characters
from lit_llm.inference.sampling import Sampling
from lit_llm.inference.text import Asked, TextModel
from lit_llm.training import callbacks
from lit_llm.training.callbacks import SampleText, Throughput

DROPOUT = ("--model.backbone.block=lit_llm.backbone.gpt.Block", "--model.backbone.block.dropout=0.3")
STEPS = ("--trainer.max_steps=6", "--trainer.val_check_interval=3", "--trainer.log_every_n_steps=2", *DROPOUT)
NAMES = ("LearningRateMonitor", "Throughput", "ReferenceLines", "SampleText")
GROUPS = ("matrices", "tables", "vectors")
VALIDATION = ("val/loss", "val/perplexity", "val/bits_per_byte")
REFERENCE = ("reference/unigram_loss", "reference/bigram_loss")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def run(config) -> tuple[Path, str]:
    """The folder of a run of six steps with all callbacks, and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["fit", "-c", str(config), *STEPS, *(f"--trainer.callbacks+={name}" for name in NAMES)]) == 0
    return run_folders(config.parent)[0], printed.getvalue()


def text(run: Path, tag: str) -> dict[int, str]:
    """What stands under a tag of the Text page, by step."""
    return {e.step: e.tensor_proto.string_val[0].decode() for e in events(run).Tensors(f"{tag}/text_summary")}


def test_every_tag(run) -> None:
    """The tags of the README's table, and no others."""
    rates = {f"lr-AdamW/{group}" for group in GROUPS}
    train = {"train/loss", "train/gradient_norm", "train/tokens_per_second", "tokens"}
    assert set(events(run[0]).Tags()["scalars"]) == {*VALIDATION, *REFERENCE, *rates, *train, "epoch"}
    texts = {tag.removesuffix("/text_summary") for tag in events(run[0]).Tags()["tensors"] if "/text_summary" in tag}
    assert texts == {"config", "samples/0", "samples/1", "samples/2"}


def test_when_it_is_logged(run) -> None:
    """Training every two steps, validation every three."""
    steps = {tag: list(losses(run[0], tag)) for tag in events(run[0]).Tags()["scalars"]}
    assert all(steps[tag] == [2, 5] for tag in (*VALIDATION, *REFERENCE))
    assert all(steps[tag] == [1, 3, 5] for tag in ("train/loss", "train/gradient_norm", "tokens"))
    assert [steps[f"lr-AdamW/{group}"] for group in GROUPS] == [[0, 1, 3, 5]] * 3  # and where an epoch begins


def test_values_fit_each_other(run) -> None:
    """Perplexity and bits follow from the loss; tokens are batches; the lines are those of counting."""
    folder = run[0]
    for step, loss in losses(folder, "val/loss").items():
        assert losses(folder, "val/perplexity")[step] == pytest.approx(math.exp(loss), rel=1e-5)
        # A token is a byte here.
        assert losses(folder, "val/bits_per_byte")[step] == pytest.approx(loss / math.log(2), rel=1e-6)
        assert losses(folder, REFERENCE[1])[step] < losses(folder, REFERENCE[0])[step] < math.log(257)
    assert losses(folder, "tokens") == {step: 35 * (step + 1) for step in (1, 3, 5)}
    assert list(losses(folder, "lr-AdamW/matrices").values()) == pytest.approx([0.01] * 4)
    assert weights(folder)["callbacks"]["Throughput"] == {"tokens": 6 * 35}


def test_the_end_is_told(run) -> None:
    """The last lines compare the model with counting, and name the folder."""
    folder, printed = run
    for name, tag in (("validation loss", "val/loss"), ("bigram loss", REFERENCE[1]), ("unigram loss", REFERENCE[0])):
        assert f"{name:16} {losses(folder, tag)[5]:.3f} nats a token" in printed
    assert f"bits per byte    {losses(folder, 'val/bits_per_byte')[5]:.3f}" in printed
    assert f"run folder       {folder}" in printed
    assert f"tensorboard --logdir {folder.parents[1]}" in printed


def test_one_chart_for_the_loss_and_its_references(run) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    (event,) = events(run[0]).Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    assert set(layout.category[0].chart[0].multiline.tag) == {"val/loss", *REFERENCE}


def test_config_as_text(run) -> None:
    """The Text page shows what config.yaml holds."""
    shown = text(run[0], "config")[0].removeprefix("```yaml\n").removesuffix("\n```")
    assert yaml.safe_load(shown) == yaml.safe_load((run[0] / "config.yaml").read_text())


def test_hyper_parameters_beside_metrics(run) -> None:
    """The HParams page: options by their names on the command line, metrics by the tags of real curves."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    contents = events(run[0]).PluginTagToContent("hparams")
    parts = [HParamsPluginData.FromString(content) for content in contents.values()]
    experiment = next(part.experiment for part in parts if part.HasField("experiment"))
    values = next(part.session_start_info.hparams for part in parts if part.HasField("session_start_info"))
    metrics = {info.name.tag for info in experiment.metric_infos}
    assert metrics >= {
        *VALIDATION,
        "tokens",
        "test/loss",
        "test/accuracy",
        "val/accuracy",
    }  # the page has one list for all
    assert metrics & set(events(run[0]).Tags()["scalars"]) == {*VALIDATION, "tokens"}
    saved = torch.load(run[0] / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert values["parameters"].number_value == sum(weight.numel() for weight in saved.values())
    assert values["model.optimizer.lr"].number_value == 0.01
    assert values["data.block_size"].number_value == 7
    assert values["seed_everything"].number_value == 1234
    assert values["model.backbone.block.dropout"].number_value == 0.3
    assert not [name for name in values if "class_path" in name or "init_args" in name]


def test_samples_are_what_the_model_writes(run) -> None:
    """Each prompt at each validation, continued as the checkpoint of that moment continues it."""
    model = TextModel.from_source(run[0] / "checkpoints" / "last.ckpt")
    for number in range(3):
        samples = text(run[0], f"samples/{number}")
        assert list(samples) == [3, 6]
        assert all(line.startswith("    ") for line in samples[6].split("\n"))  # verbatim, in Markdown
        prompt, _, new = "\n".join(line[4:] for line in samples[6].split("\n")).partition("|")
        assert len(prompt) == 3  # half of block_size
        assert new == model.complete(prompt, Asked(4, Sampling(0.8)), seed=0)


def test_learning_does_not_notice(run, config, capsys) -> None:
    """The same weights without any of it, with dropout: no callback draws from the randomness of the training."""
    assert call(capsys, "fit", "-c", config, *STEPS).code == 0
    plain = run_folders(config.parent)[1]
    assert same(weights(run[0])["state_dict"], weights(plain)["state_dict"])
    assert losses(plain) == losses(run[0])


class Clock:
    """Moves on by a second for each batch, and by an hour for each validation."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def move(self, seconds: float) -> Callback:
        def forward(*_: Any) -> None:
            self.now += seconds

        return Call("on_train_batch_start" if seconds == 1 else "on_validation_end", forward)


def test_throughput_without_the_time_of_validations(tmp_path, monkeypatch) -> None:
    """One batch a second is B * T tokens a second, whatever is done in between; utilization is in units of the peak."""
    clock, meter, module = Clock(), Throughput(), tiny_module()
    monkeypatch.setattr(callbacks, "time", clock)
    peak = Call("on_train_start", lambda trainer, module: setattr(meter, "_peak", 1e6))
    steps = {"max_steps": 6, "val_check_interval": 3, "check_val_every_n_epoch": None}
    run = trainer(callbacks=[meter, peak, clock.move(1), clock.move(3600)], **steps)
    run.fit(module, tiny_data(tmp_path))
    assert clock.now == 6 + 2 * 3600
    assert run.callback_metrics["train/tokens_per_second"] == B * T
    flops = B * T * module.backbone.flops_per_token()
    assert run.callback_metrics["train/model_flops_utilization"] == pytest.approx(flops / 1e6)
    assert run.callback_metrics["tokens"] == 6 * B * T


def test_tokens_are_counted_over_a_resumption(tmp_path) -> None:
    """The axis of the curves goes on where it was."""
    first, steps = trainer(callbacks=[Throughput()], max_steps=2, limit_val_batches=0), {"limit_val_batches": 0}
    first.fit(tiny_module(), tiny_data(tmp_path))
    first.save_checkpoint(tmp_path / "2.ckpt")
    second = trainer(callbacks=[meter := Throughput()], max_steps=5, **steps)
    second.fit(tiny_module(), tiny_data(tmp_path), ckpt_path=tmp_path / "2.ckpt", weights_only=True)
    assert meter.tokens == 5 * B * T


def test_a_prompt_that_cannot_be_read_fails_at_once(tmp_path) -> None:
    """Not at the first validation, after hours."""
    data = tiny_data(tmp_path, tokenizer=Characters())
    data.prepare_data()
    module, batches = tiny_module(backbone=tiny_backbone(vocab_size=data.vocab_size)), []
    count = Call("on_train_batch_start", lambda *_: batches.append(1))
    with pytest.raises(ValueError, match="the character 'é' is not among"):
        trainer(callbacks=[SampleText(["the", "é"]), count]).fit(module, data)
    assert not batches


def test_a_prompt_that_fills_all_positions_fails_at_once(tmp_path) -> None:
    with pytest.raises(ValueError, match="the sample prompt 'the cat' leaves the model no position"):
        trainer(callbacks=[SampleText(["the cat"])]).fit(tiny_module(), tiny_data(tmp_path))


def test_own_prompts(config, capsys) -> None:
    """Those of the config, with its length, temperature 0; a line break in a prompt stays verbatim."""
    sample = '{class_path: SampleText, init_args: {prompts: ["a\\nb"], max_new_tokens: 3, temperature: 0}}'
    args = ("--trainer.max_steps=2", "--trainer.val_check_interval=2", f"--trainer.callbacks+={sample}")
    assert call(capsys, "fit", "-c", config, *args).code == 0
    folder = run_folders(config.parent)[-1]
    model = TextModel.from_source(folder / "checkpoints" / "last.ckpt")
    new = model.complete("a\nb", Asked(3, Sampling(0.0)))
    assert text(folder, "samples/0")[2].replace("\n    ", "\n") == f"    a\nb|{new}"
    assert torch.is_grad_enabled()


def test_a_sample_leaves_room_for_the_token_that_begins_a_text(config, capsys, monkeypatch) -> None:
    """It is one position more than the prompt takes; without room for it the run would end at its first validation."""
    from lit_llm.data.tokenizer import Bytes

    monkeypatch.setattr(Bytes, "begin_of_text", 256)
    sample = "{class_path: lit_llm.training.callbacks.SampleText, init_args: {prompts: [abc], max_new_tokens: 64}}"
    args = ("--trainer.max_steps=2", "--trainer.val_check_interval=2", f"--trainer.callbacks+={sample}")
    assert call(capsys, "fit", "-c", config, *args).code == 0
