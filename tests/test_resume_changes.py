"""What a run may go on with, by steps and by epochs: other batches and devices, not other rows or another order."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import call, equal_at_the_end, refusal, run_folders
from resume_runs import EPOCHS, OFTEN, TASKS, batches, curves, write_config

MIDDLE = dict(zip(TASKS, (12, 17, 25, 17), strict=True))  # batches up to the middle of the second epoch
CRASH_IN_EPOCH_2 = ("--trainer.callbacks+=resume_parts.Crash", "--trainer.callbacks.hook=on_train_batch_end")


@pytest.fixture(scope="module")
def config_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The config of a task by epochs or by steps, and a run of it that crashed in its second epoch."""
    made: dict[tuple[str, str], Path] = {}

    def make(capsys: Any, name: str, unit: str) -> Path:
        if (name, unit) not in made:
            folder = tmp_path_factory.mktemp("cut")
            made[name, unit] = config = write_config(folder, name, unit, (1, 0, None, False, "given"))
            places = "--trainer.callbacks+=resume_parts.Places"
            crash = (*CRASH_IN_EPOCH_2, f"--trainer.callbacks.calls={MIDDLE[name]}", f"--trainer.callbacks+={OFTEN}")
            with pytest.raises(RuntimeError, match="crash"):
                call(capsys, "fit", "-c", config, places, *crash)
        return made[name, unit]

    return make


def places(run: Path) -> dict[int, list[int]]:
    """The rows that all ranks have read, by epoch."""
    found: dict[int, list[int]] = {}
    for path in run.glob("places-*.txt"):
        for line in path.read_text().splitlines():
            epoch, rows = json.loads(line)
            found.setdefault(epoch, []).extend(rows)
    return found


CHANGES = {
    "larger batches": ("--data.batch_size=5",),
    "smaller batches": ("--data.batch_size=1",),
    "one batch": ("--data.batch_size=14",),
    "accumulation": ("--trainer.accumulate_grad_batches=3",),
    "precision": ("--trainer.precision=bf16-mixed",),
    "devices": ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2"),
}


@pytest.mark.parametrize("change", [pytest.param(c, marks=pytest.mark.slow) if c == "devices" else c for c in CHANGES])
@pytest.mark.parametrize("name", TASKS)
def test_what_may_change_keeps_rows_and_epochs(tmp_path, capsys, config_of, name, change) -> None:
    """No row of an epoch comes twice, none is left out but a ragged rest; epochs and their validations count on."""
    config, watch = config_of(capsys, name, "epochs"), "--trainer.callbacks+=resume_parts.Places"
    first, logs = run_folders(config.parent)[0], f"--trainer.logger.save_dir={tmp_path / 'logs'}"
    assert call(capsys, "fit", "-c", config, watch, logs, f"--ckpt_path={first}", *CHANGES[change]).code == 0
    (second,) = run_folders(tmp_path)
    state = torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)
    (place,) = (value["train"] for key, value in state.items() if isinstance(value, dict) and "train" in value)
    epoch, done, length = place["epoch"], place["rows"], place["of_rows"]
    size = {"larger batches": 5, "smaller batches": 1, "one batch": 14, "devices": 4}.get(change, 2)
    assert (epoch, 0 < done < length) == (1, True)
    before, after = places(first)[epoch][:done], places(second)
    whole = [*before, *after[epoch]]
    assert len(whole) == len(set(whole)) > length - max(size, 2)
    assert sorted(after) == [1, 2]
    assert len(set(after[2])) == len(after[2]) == length // size * size
    scored = curves([first, second])["val/loss"]
    assert len(scored) == EPOCHS


def test_a_loader_built_before_the_restore_goes_on(tmp_path, capsys, config_of) -> None:
    """Whatever asks for it before Lightning restores a run, and even reads from it."""
    for unit in ("epochs", "steps"):
        config = config_of(capsys, "LanguageModeling", unit)
        first = run_folders(config.parent)[0]
        for number, early in enumerate(((), ("--trainer.callbacks+=resume_parts.Early",))):
            logs = f"--trainer.logger.save_dir={tmp_path / unit / 'logs'}"
            watch = ("--trainer.callbacks+=resume_parts.Batches", *early)
            assert call(capsys, "fit", "-c", config, logs, f"--ckpt_path={first}", *watch).code == 0
            assert len(run_folders(tmp_path / unit)) == number + 1
        plain, early_one = run_folders(tmp_path / unit)
        assert batches(plain) == batches(early_one)
        assert equal_at_the_end(plain, early_one)


REFUSED = {
    "seed": "another seed of their order",
    "share": "another",
    "split seed": "another split of",
    "source": "",  # another number of rows, others, or other pairs than those of the reference
    "tokenizer": "",  # other ids, or more or fewer of them
    "template": "the tokenizer of",
}


@pytest.mark.parametrize("unit", ["steps", "epochs"])
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", TASKS)
def test_what_may_not_change_is_refused(tmp_path, capsys, config_of, name, what, unit) -> None:
    """By steps and by epochs alike, in one sentence, before a batch is read."""
    if (name, what) in {*((TASKS[0], w) for w in ("split seed", "template")), ("Classification", "template")}:
        pytest.skip("the data has none")
    config = config_of(capsys, name, unit)
    source = Path(yaml.safe_load(config.read_text())["data"]["init_args"]["source"])
    text, other = source.read_text(), tmp_path / source.name
    other.write_text(json.dumps(json.loads(text)[4:]) if source.suffix == ".json" else text.partition("\n")[2])
    option = {
        "seed": "--seed_everything=5",
        "share": "--data.val_fraction=0.2",
        "split seed": "--data.split_seed=3",
        "source": f"--data.source={other}",
        "tokenizer": "--data.tokenizer=Characters",
        "template": "--data.template=chatml",
    }[what]
    first, logs = run_folders(config.parent)[0], f"--trainer.logger.save_dir={tmp_path / 'logs'}"
    watch = "--trainer.callbacks+=resume_parts.Batches"
    result = call(capsys, "fit", "-c", config, logs, f"--ckpt_path={first}", option, watch)
    assert REFUSED[what] in refusal(result)
    assert not list(tmp_path.rglob("batches.txt"))
