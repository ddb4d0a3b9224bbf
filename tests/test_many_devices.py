"""Several devices against one: the same windows, losses and checkpoints; one run folder; every way to start them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import ROOT, events, losses, run_folders, same, spawn, weights, write_tiny
from two_ranks import CLIP, FOUR, FROZEN, LEG_STEPS, LEGS, RUNS, STRATEGIES, free_port

from lit_llm.__main__ import main
from lit_llm.weights.checkpoint import read_checkpoint

CLOSE = 1e-5  # nats; sums in another order differ by rounding


def two_ranks(what: str, folder: Path) -> dict:
    """Run tests/two_ranks.py in a process that has started no threads yet; a rank that hangs is killed."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "LIT_LLM_CACHE": str(folder / "cache")}
    command = ["timeout", "-s", "KILL", "240", sys.executable, str(ROOT / "tests" / "two_ranks.py"), what, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two_ranks")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict:
    """What two ranks found, and one."""
    return two_ranks("compare", folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_one_process(results, name, strategy) -> None:
    """The same windows in each step, on two ranks or on one; then the same gradients, and the same validation loss."""
    one, two = results[f"{name} one"], results[f"{name} {strategy}"]
    assert two["windows"] == one["windows"]
    for curve in ("norm", "val") if name == "accumulated" else ("train", "norm", "val"):  # a part of a step has no mean
        assert two[curve] == pytest.approx(one[curve], abs=CLOSE)
    assert len(two["norm"]) == RUNS[name]["max_steps"]
    assert min(one["norm"]) > CLIP  # else a norm of one rank alone would do no harm


def test_no_window_is_read_twice(results) -> None:
    """Within an epoch, whichever rank reads it."""
    epoch = [tuple(row) for step in results["llama ddp"]["windows"][:3] for row in step]
    assert len(epoch) == len(set(epoch)) == 30


def test_muon_on_sharded_matrices(results) -> None:
    """It orthogonalizes whole ones; of a piece of each it says that it cannot."""
    assert results["muon fsdp"]["train"] == pytest.approx(results["muon one"]["train"], abs=CLOSE)
    assert "MuonAdamW may look at whole matrices" in results["refused muon"]


@pytest.mark.parametrize("name", FROZEN)
def test_what_does_not_train_is_the_same_on_all(results, name) -> None:
    """Gradients of the last block or of adapters alone are those of one process."""
    one, two = results[f"{name.rpartition(' ')[0]} one"], results[name]
    for curve in ("train", "norm", "val"):
        assert two[curve] == pytest.approx(one[curve], abs=CLOSE)
    assert one["train"][0] != pytest.approx(one["train"][-1], abs=100 * CLOSE)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_classifier_waits_for_no_gradient_of_the_head_of_the_vocabulary(results, strategy) -> None:
    """It is there, of its own, and not used: DDP would end with an error of unused parameters."""
    assert results[f"classifier {strategy}"] == pytest.approx(results["classifier one"], abs=CLOSE)


def test_what_several_devices_cannot_train_is_refused(results) -> None:
    """A schedule, and adapters under tensor parallelism."""
    assert results["refused schedule"].endswith("let the same train all the time, or say --trainer.devices 1")
    said = "tensor parallelism cannot share the adapter of 'blocks.0.attention.qkv'"
    assert results["refused adapters"].startswith(said)


def test_a_run_goes_on_by_another_strategy(results, folder) -> None:
    """FSDP2, DDP, tensor parallelism, one device: each from the checkpoint of the one before, as if none changed."""
    legs = [loss for number in range(len(LEGS)) for loss in results[f"leg {number}"]["train"]]
    assert legs == pytest.approx(results["llama one"]["train"][: len(LEGS) * LEG_STEPS], abs=CLOSE)
    saved = [read_checkpoint(folder / f"leg_{number}" / "checkpoints" / "last.ckpt") for number in range(len(LEGS))]
    shapes = [{name: value.shape for name, value in checkpoint["state_dict"].items()} for checkpoint in saved]
    assert all(shape == shapes[-1] for shape in shapes)
    moments = [{n: s["exp_avg"].shape for n, s in c["optimizer_states"][0]["state"].items()} for c in saved]
    assert all(shape == moments[-1] for shape in moments)


def test_samples_and_speed_of_a_divided_network(results, folder) -> None:
    """What needs all ranks waits for none of them, and one of them writes; tokens are those of different windows."""
    logged = [events(folder / "logs" / name / "version_0") for name in (*STRATEGIES, "one")]
    for tag in ("tokens", "train/gradient_norm"):
        curves = [[event.value for event in run.Scalars(tag)] for run in logged]
        assert all(curve == pytest.approx(curves[-1], abs=CLOSE) for curve in curves)
    texts = [[event.tensor_proto.string_val for event in run.Tensors("samples/0/text_summary")] for run in logged]
    assert all(text == texts[-1] for text in texts)
    assert len(texts[0]) == 2


def test_ddp_by_the_command_line(tmp_path) -> None:
    """One command starts both ranks, which share a run folder; one of them writes."""
    args = ("fit", "-c", write_tiny(tmp_path, lines=20), "--data.batch_size=3")
    env = {"MASTER_PORT": str(free_port())}
    process = spawn(*args, "--trainer.devices=2", "--trainer.strategy=ddp", env=env)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (run,) = run_folders(tmp_path)
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "checkpoints"}
    assert len({path.name.split(".")[-2] for path in run.glob("events.*")}) == 1  # process that writes
    assert sorted(losses(run)) == [0, 1, 2, 3]
    (state,) = weights(run)["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert state["rows"] == 4 * 2 * 3


@pytest.mark.slow
def test_tensor_parallelism_within_fsdp(tmp_path) -> None:
    """On four ranks: two pairs share the network, and each pair its matrix products."""
    found = two_ranks("four", tmp_path)
    one, four = found["one"], found[FOUR]
    assert four["windows"] == one["windows"]
    for curve in ("train", "norm", "val"):
        assert four[curve] == pytest.approx(one[curve], abs=CLOSE)


@pytest.mark.slow
def test_overlays_for_several_devices(tmp_path) -> None:
    """Each fits two steps by the command line, with all callbacks; the last one as two tasks of SLURM."""
    assert set(two_ranks("commands", tmp_path).values()) == {0}
    names = ("ddp", "fsdp", "tensor_parallel", "multi_node")
    checkpoints = {name: weights(tmp_path / "logs" / name / "version_0") for name in names}
    assert all(len(run_folders(tmp_path, name)) == 1 for name in names)
    assert all(c["global_step"] == 2 and c["hyper_parameters"]["backbone"] for c in checkpoints.values())
    assert same(checkpoints["ddp"]["state_dict"], checkpoints["multi_node"]["state_dict"])


SRUN = """#!/bin/sh
# Two tasks of SLURM, each on a machine of its own; the first word is an option of srun.
shift
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=0 SLURM_NODEID=$rank "$@" &
  tasks="$tasks $!"
done
for task in $tasks; do wait "$task" || exit 1; done
"""
SLURM = {"JOB_ID": 1, "JOB_NAME": "fit", "NNODES": 2, "NTASKS": 2, "NTASKS_PER_NODE": 1, "NODELIST": "127.0.0.1"}


def start_script(name: str, folder: Path, *options: str, **env: object) -> subprocess.Popen:
    """Start a script of experiments/slurm with a tiny run."""
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in env.items()}
    shell = "bash" if name.endswith("sbatch") else "sh"
    own = ("--trainer.strategy=ddp", "--data.batch_size=3", *options)
    command = [shell, str(ROOT / "experiments" / "slurm" / name), "-c", str(folder / "tiny.yaml"), *own]
    return subprocess.Popen(command, env=known, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=150)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_two_machines(tmp_path) -> None:
    """Started on each by torchrun, or by SLURM, after a requeue as well: one run folder, the losses of one process."""
    write_tiny(tmp_path, lines=20)
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "lit-llm").write_text(f'#!/bin/sh\nexec {sys.executable} -m lit_llm "$@"\n')
    for name in ("srun", "lit-llm"):
        (tmp_path / name).chmod(0o755)
    machine = {"NODES": 2, "DEVICES": 1, "HEAD": "127.0.0.1", "PORT": free_port()}
    for process in [start_script("torchrun.sh", tmp_path, **machine) for _ in range(2)]:
        end(process)
    slurm = {"MASTER_PORT": free_port()} | {f"SLURM_{key}": value for key, value in SLURM.items()}
    end(start_script("fit.sbatch", tmp_path, "--trainer.max_steps=2", **slurm))
    end(start_script("fit.sbatch", tmp_path, **slurm, SLURM_RESTART_COUNT=1))
    one = ("--data.batch_size=6", "--trainer.devices=1")
    assert main(["fit", "-c", str(tmp_path / "tiny.yaml"), *one]) == 0

    torchrun, slurm_first, slurm_second, alone = (losses(run) for run in run_folders(tmp_path))
    assert torchrun == pytest.approx(alone, abs=CLOSE)
    assert slurm_first | slurm_second == pytest.approx(alone, abs=CLOSE)
