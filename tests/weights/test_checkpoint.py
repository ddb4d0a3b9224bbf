"""Our own checkpoints: which file is meant, what is refused, and the network that comes out."""

import os
import pickle
import random
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import run_folders, same, write_tiny
from python_runs import T, V, tiny_backbone, tiny_data, tiny_module, trainer

from lit_llm.__main__ import main
from lit_llm.backbone import GPT
from lit_llm.inference.text import TextModel
from lit_llm.modules import LanguageModeling
from lit_llm.weights.checkpoint import (
    checkpoint_source,
    find_checkpoints,
    misfits,
    module_class,
    open_checkpoint,
    read_checkpoint,
)

# find_checkpoints


def runs(folder: Path, **files: int) -> Path:
    """Runs with empty checkpoints, `version_0__best=3` written at second 3."""
    for name, time in files.items():
        run, _, kind = name.partition("__")
        path = folder / "nano" / run / "checkpoints" / f"{kind}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time, time))
    return folder / "nano"


def found(path: Path, *names: str) -> str:
    file, *_ = find_checkpoints(path, names) if names else find_checkpoints(path)
    return "/".join(file.parts[-3::2])  # run and file


def test_a_file_is_itself(tmp_path, monkeypatch) -> None:
    (tmp_path / "any name").touch()
    assert find_checkpoints(tmp_path / "any name") == [tmp_path / "any name"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoints("~/any name") == [tmp_path / "any name"]


def test_a_run_gives_the_preferred_name_it_has(tmp_path) -> None:
    """However old that file is."""
    folder = runs(tmp_path, version_0__best=1, version_0__last=2, version_1__last=3)
    assert found(folder / "version_0") == "version_0/best.ckpt"
    assert found(folder / "version_0", "last", "best") == "version_0/last.ckpt"
    assert found(folder / "version_1", "best", "last") == "version_1/last.ckpt"


def test_a_folder_of_runs_gives_the_one_written_last(tmp_path) -> None:
    """By time, for a run with a lower number may have ended later; a run is not left out for lack of a best one."""
    folder = runs(tmp_path, version_0__best=5, version_0__last=6, version_10__best=3, version_10__last=4)
    assert found(folder) == "version_0/best.ckpt"
    runs(tmp_path, version_2__last=7)
    assert found(folder) == "version_2/last.ckpt"
    assert found(folder, "best") == "version_0/best.ckpt"


def test_no_checkpoint_is_an_error(tmp_path) -> None:
    folder = runs(tmp_path, version_0__other=1)
    with pytest.raises(ValueError, match=r"nano' holds no run with a checkpoint best or last\.ckpt"):
        find_checkpoints(folder)
    with pytest.raises(ValueError, match=r"holds no run with a checkpoint last\.ckpt"):
        find_checkpoints(tmp_path, ("last",))
    with pytest.raises(ValueError, match=r"there is no checkpoint or run folder '.*nowhere'"):
        find_checkpoints(tmp_path / "nowhere")


# read_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run from the command line."""
    folder = tmp_path_factory.mktemp("run")
    options = ("--trainer.max_steps=2", "--model.backbone.vocab_multiple=64")
    assert main(["fit", "-c", str(write_tiny(folder)), *options]) == 0
    return run_folders(folder)[0] / "checkpoints" / "last.ckpt"


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def cut(size: Callable[[int], int]) -> Callable[[Path, Path], None]:
    def write(path: Path, good: Path) -> None:
        content = good.read_bytes()
        path.write_bytes(content[: size(len(content))])

    return write


def saved(content: Any) -> Callable[[Path, Path], None]:
    return lambda path, good: torch.save(content, path)


def pickled(path: Path, good: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.with_name("marker"))))


def malicious(path: Path, good: Path) -> None:
    torch.save({"pytorch-lightning_version": "2.6.6", "state_dict": Malicious(path.with_name("marker"))}, path)


BAD: dict[str, Callable[[Path, Path], Any]] = {
    "empty": cut(lambda size: 0),
    "4 bytes": cut(lambda size: 4),
    "1000 bytes": cut(lambda size: 1000),
    "half": cut(lambda size: size // 2),
    "10 bytes missing": cut(lambda size: size - 10),
    "page": lambda path, good: path.write_text("<!DOCTYPE html><html><body>404</body></html>" * 100),
    "pointer": lambda path, good: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
    "pickle": pickled,
    "malicious": malicious,
    "archive": lambda path, good: Path(shutil.make_archive(str(path), "zip", good.parent)).rename(path),
    "tensor": saved(torch.zeros(3)),
    "weights alone": saved({"a.weight": torch.zeros(3, 2)}),
    "list for weights": saved({"pytorch-lightning_version": "2.6.6", "state_dict": [1]}),
    "objects": saved({"pytorch-lightning_version": "2.6.6", "hyper_parameters": Namespace(dim=3)}),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_checkpoint_is_refused_in_a_sentence(checkpoint, tmp_path, kind) -> None:
    """K5, K7, K8: cut short, something else, somebody else's: a ValueError that names the file; no code is run."""
    path = tmp_path / "bad.ckpt"
    BAD[kind](path, checkpoint)
    with pytest.raises(ValueError, match=r"^'[^']*/bad\.ckpt' .*(no checkpoint|only checkpoints written by)") as error:
        read_checkpoint(path)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
    assert not (tmp_path / "marker").exists()
    if kind in ("pickle", "malicious"):
        torch.load(path, weights_only=False) if kind == "malicious" else pickle.loads(path.read_bytes())
        assert (tmp_path / "marker").exists()  # it would have


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"there is no checkpoint '.*x\.ckpt'"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_flipped_bit_is_found_or_harmless(checkpoint, tmp_path) -> None:
    """K6: wherever it falls, the file is refused, or reads as before: a bit of padding, or a date."""
    good, path = checkpoint.read_bytes(), tmp_path / "flipped.ckpt"
    whole, refused = read_checkpoint(checkpoint), 0
    choose = random.Random(0)
    for place in [choose.randrange(len(good)) for _ in range(200)]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << choose.randrange(8)]) + good[place + 1 :])
        try:
            assert same(read_checkpoint(path)["state_dict"], whole["state_dict"]), place
        except ValueError:
            refused += 1
    assert refused > 150


def test_a_damaged_one_is_skipped_and_told_of(checkpoint, tmp_path, capsys) -> None:
    """K16: the next one of the run is taken, then those of the runs before; a file named by itself is not replaced."""
    folder = runs(tmp_path, version_0__last=1, version_1__best=2, version_1__last=3)
    good = checkpoint.read_bytes()
    files = find_checkpoints(folder, ("last", "best"))
    for file in files:
        file.write_bytes(good)
    stamp(files)
    for number, file in enumerate(files[:2], start=1):
        file.write_bytes(good[: len(good) // 2])
        stamp(files)
        assert open_checkpoint(folder, ("last", "best"))[0] == files[number]
        assert f"'{file}' ({len(good) // 2} bytes) is no checkpoint" in capsys.readouterr().err
    files[2].write_bytes(b"")
    stamp(files)
    with pytest.raises(ValueError, match=r"version_0/checkpoints/last\.ckpt' \(0 bytes\) is no checkpoint"):
        open_checkpoint(folder, ("last", "best"))
    with pytest.raises(ValueError, match=r"version_1/checkpoints/last\.ckpt'"):
        open_checkpoint(files[0])


def stamp(files: list[Path]) -> None:
    """Dates in the order of the files, the first one being the newest."""
    for age, file in enumerate(files):
        os.utime(file, (100 - age, 100 - age))


# checkpoint_source


def backbone_of(checkpoint: dict) -> GPT:
    return checkpoint_source("it.ckpt", checkpoint).backbone()


def test_backbone_is_the_trained_one(checkpoint, tmp_path) -> None:
    """The same logits as the module's, in eval mode, and still after the file has been written over."""
    path = Path(shutil.copy(checkpoint, tmp_path / "copy.ckpt"))
    module = LanguageModeling.load_from_checkpoint(path).eval()
    backbone = checkpoint_source(path, read_checkpoint(path)).backbone()
    path.write_bytes(bytes(path.stat().st_size))
    idx = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = backbone(idx)
        assert torch.equal(logits, module.backbone(idx))
    assert logits.shape == (2, T, V)
    assert not backbone.training
    assert backbone.embedding.tokens.weight.shape[0] == 320  # padded, as it was trained


def test_names_of_wrapped_modules_are_unwrapped(checkpoint, tmp_path) -> None:
    """K20: what torch.compile and DistributedDataParallel put before names; written by others, never by us."""
    plain = read_checkpoint(checkpoint)
    assert not [name for name in plain["state_dict"] if "_orig_mod" in name or name.startswith("module.")]
    for wrap in (
        "module.backbone.{}",
        "_orig_mod.backbone.{}",
        "module._orig_mod.backbone.{}",
        "backbone._orig_mod.{}",
    ):
        names = {name: wrap.format(name.removeprefix("backbone.")) for name in plain["state_dict"]}
        wrapped = {names[name]: tensor for name, tensor in plain["state_dict"].items()}
        torch.save({**plain, "state_dict": wrapped}, tmp_path / "wrapped.ckpt")
        found = read_checkpoint(tmp_path / "wrapped.ckpt")
        assert same(found["state_dict"], plain["state_dict"])
        assert same(backbone_of(found).state_dict(), backbone_of(plain).state_dict())


def test_settings_that_cannot_be_built_here_are_named(checkpoint) -> None:
    """Of a part that lies in another project, of a size that the weights do not have."""
    whole = read_checkpoint(checkpoint)
    arguments = whole["hyper_parameters"]["backbone"]["init_args"]
    whole["hyper_parameters"]["backbone"]["init_args"] = arguments | {"norm": "nowhere.parts.Norm"}
    with pytest.raises(ValueError, match=r"'lit_llm\.GPT' cannot be built here: .* is 'nowhere\.parts\.Norm'"):
        backbone_of(whole)
    whole["hyper_parameters"]["backbone"]["init_args"] = arguments | {"n_embd": 36}
    with pytest.raises(ValueError, match=r"do not fit the model; of another shape is .* and [0-9]+ more"):
        backbone_of(whole)


FOREIGN = {
    "another project": ({"dim": 3}, "does not say how its backbone is built"),
    "nothing said": ({}, "does not say how its backbone is built"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_lightning_checkpoint_of_another_project(tmp_path, kind) -> None:
    """It can be read, and says nothing that a text could be made with."""
    settings, reason = FOREIGN[kind]
    path = tmp_path / "theirs.ckpt"
    torch.save({"pytorch-lightning_version": "2.1", "state_dict": {}, "hyper_parameters": settings}, path)
    with pytest.raises(ValueError, match=rf"theirs\.ckpt' {reason}"):
        TextModel.from_source(path)


def test_checkpoint_of_a_module_made_in_python(tmp_path) -> None:
    """Of a function it does not say how its backbone is built, and the sentence says which file, and what to do."""
    run = trainer(max_steps=1, limit_val_batches=0)
    run.fit(tiny_module(backbone=tiny_backbone(norm=lambda width: torch.nn.LayerNorm(width))), tiny_data(tmp_path))
    run.save_checkpoint(tmp_path / "python.ckpt")
    said = r"python\.ckpt' does not say how its backbone is built .* use load_from_checkpoint"
    with pytest.raises(ValueError, match=said):
        TextModel.from_source(tmp_path / "python.ckpt")


# misfits, module_class


def test_misfits_are_the_first_few_by_name() -> None:
    module = torch.nn.Linear(2, 3)
    assert misfits(module, module.state_dict()) == ""
    assert misfits(module, {"weight": torch.zeros(2, 3)}) == "bias is missing; weight is (2, 3), not (3, 2)"
    more = {f"x{number}": 0 for number in range(4)}
    assert misfits(module, module.state_dict() | more) == "x0 is unknown; x1 is unknown; x2 is unknown and 1 more"


def test_the_class_that_wrote_it(checkpoint) -> None:
    assert module_class(read_checkpoint(checkpoint)) is LanguageModeling
    for name in ("lit_llm.modules.Gone", "nowhere.Module", "Module", ""):
        assert module_class({"hyper_parameters": {"_class_path": name}}) is None
