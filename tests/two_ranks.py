"""What ranks do, for test_many_devices.py: all but the first are forked, so that they import once.

`python tests/two_ranks.py compare FOLDER` (or `commands`, or `four`) writes `FOLDER/results.json`.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cli_runs import ROOT, write_text
from python_runs import B, Call, tiny_backbone, tiny_data, tiny_module, trainer
from text_runs import BLOCK, TinyTexts, tiny_classification
from torch.utils.data import DataLoader

from lit_llm.__main__ import main
from lit_llm.backbone.layers import CausalSelfAttention, GatedMLP, Head
from lit_llm.backbone.lora import LoRA
from lit_llm.backbone.rotary import Rotary
from lit_llm.training.callbacks import SampleText, Throughput
from lit_llm.training.checkpoints import LastCheckpoint
from lit_llm.training.logger import RunLogger
from lit_llm.training.losses import LinearCrossEntropy
from lit_llm.training.optim import MuonAdamW
from lit_llm.training.strategies import ShardedStrategy

STRATEGIES: dict[str, Callable[[], Any]] = {
    "ddp": lambda: "ddp",
    "fsdp": ShardedStrategy,
    "tensor_parallel": lambda: ShardedStrategy(tensor_parallel_size=2),
}
FOUR = "tensor_parallel on four"  # ranks: sharded over two pairs
LEGS = ("fsdp", "ddp", "tensor_parallel", "one")  # of a run that goes on by another strategy each time
LEG_STEPS = 3
CLIP = 0.2  # below every norm of a gradient that occurs


def llama() -> Any:
    """Grouped queries, query-key norm, gate and up in one matrix: what is easily cut in the wrong place."""
    attention = partial(
        CausalSelfAttention, n_kv_head=2, qkv_bias=False, out_bias=False, qk_norm=torch.nn.RMSNorm, rotary=Rotary
    )
    parts = {"norm": torch.nn.RMSNorm, "attention": attention, "mlp": partial(GatedMLP, hidden=34)}
    return tiny_backbone(head=partial(Head, tied=False), **parts)


BACKBONES = {"gpt2": partial(tiny_backbone, n_layer=2), "llama": llama}
OPTIMIZERS = {"adamw": partial(torch.optim.AdamW, lr=1e-3, fused=True), "muon": partial(MuonAdamW, lr=1e-3)}
RUNS: dict[str, dict[str, Any]] = {
    "llama": {"max_steps": 50},
    "gpt2": {"backbone": "gpt2", "max_steps": 6, "with_callbacks": True},
    "recomputed": {"module": {"loss": LinearCrossEntropy, "activation_checkpointing": True}, "max_steps": 4},
    "accumulated": {
        "trainer": {"accumulate_grad_batches": 2},
        "module": {"activation_checkpointing": "mlp"},
        "max_steps": 4,
    },
}
MUON = {"optimizer": "muon", "max_steps": 4}
ADAPTERS = {"module": {"lora": LoRA(rank=3, targets=["*"], dora=True)}, "max_steps": 4}
FROZEN: dict[str, dict[str, Any]] = {  # runs in which not all trains, and by what
    "last block ddp": {"backbone": "gpt2", "module": {"trainable": "last_1_blocks"}, "max_steps": 4},
    "adapters ddp": ADAPTERS,
}
FROZEN |= {name.replace("ddp", "fsdp"): settings for name, settings in FROZEN.items()}
FROZEN["last block tensor_parallel"] = FROZEN["last block ddp"]
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "muon": ("tensor_parallel", MUON),
    "adapters": ("tensor_parallel", ADAPTERS),
    "schedule": ("ddp", {"module": {"trainable": {0: "head", 2: "all"}}, "max_steps": 4}),
}


def fit(
    folder: Path,
    strategy: str,
    max_steps: int,
    backbone: str = "llama",
    optimizer: str = "adamw",
    with_callbacks: bool = False,
    **settings: Any,
) -> dict[str, list]:
    """Train with the same 2 B windows a step, however many read them; what all ranks saw and found, step by step."""
    curves: dict[str, list] = {"windows": [], "train": [], "val": [], "norm": []}
    devices = 1 if strategy == "one" else 4 if strategy == FOUR else 2
    sharing = 2 if strategy.startswith("tensor_parallel") else 1  # neighbours that read the same windows
    readers = devices // sharing

    def note_batch(run: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        rows = [batch.idx.tolist()] * run.world_size
        if run.world_size > 1:
            dist.all_gather_object(rows, batch.idx.tolist())
        assert rows[::sharing] == rows[sharing - 1 :: sharing]
        curves["windows"].append([row for reader in rows[::sharing] for row in reader])
        curves["train"].append(float(run.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")))

    def note_norm(run: Any, module: Any, optimizer: Any) -> None:
        curves["norm"].append(float(module.gradient_norm()))

    def note_validation(run: Any, module: Any) -> None:
        curves["val"].append(float(run.callback_metrics["val/loss"]))

    hooks = {
        "on_train_batch_end": note_batch,
        "on_before_optimizer_step": note_norm,
        "on_validation_end": note_validation,
    }
    callbacks = [Call(hook, function) for hook, function in hooks.items()] + settings.pop("callbacks", [])
    every = {"val_check_interval": max_steps // 2, "check_val_every_n_epoch": None, "gradient_clip_val": CLIP}
    if with_callbacks:
        callbacks += [Throughput(), SampleText(max_new_tokens=4)]
        settings["trainer"] = {"logger": RunLogger(str(folder / "logs"), strategy)}
    made = {"strategy": STRATEGIES[strategy.partition(" ")[0]]()} if devices > 1 else {}
    every |= {"max_steps": max_steps, "devices": devices}
    run = trainer(callbacks=callbacks, **every | made | settings.pop("trainer", {}))
    own = settings.pop("module", {})
    module = tiny_module(backbone=BACKBONES[backbone](), optimizer=OPTIMIZERS[optimizer], **own)
    run.fit(module, tiny_data(folder, batch_size=2 * B // readers), **settings)
    return curves


def leg(folder: Path, number: int) -> dict[str, list]:
    """Go on from the checkpoint of the leg before."""
    own = {"enable_checkpointing": True, "default_root_dir": folder / f"leg_{number}"}
    before = folder / f"leg_{number - 1}" / "checkpoints" / "last.ckpt"
    ckpt_path = {"ckpt_path": before, "weights_only": True} if number else {}
    end = {"max_steps": LEG_STEPS * (number + 1), "callbacks": [LastCheckpoint()]}
    return fit(folder, LEGS[number], trainer=own, **end, **ckpt_path)


class SharedTexts(TinyTexts):
    """The first four batches, those of each rank in turn."""

    def train_dataloader(self) -> DataLoader:
        run = self.trainer
        return DataLoader(list(self.batches("train"))[:4][run.global_rank :: run.world_size], batch_size=None)


def classify(strategy: str) -> list[float]:
    """Norms of the gradients of two steps, of two batches each; the head of the vocabulary is there and not used."""
    norms: list[float] = []
    note = Call("on_before_optimizer_step", lambda run, module, _: norms.append(float(module.gradient_norm())))
    made: dict[str, Any] = {"accumulate_grad_batches": 2}
    if strategy in STRATEGIES:
        made = {"devices": 2, "strategy": STRATEGIES[strategy](), "use_distributed_sampler": False}
    untied = tiny_backbone(n_layer=2, block_size=BLOCK, head=partial(Head, tied=False))
    module = tiny_classification(backbone=untied, optimizer=OPTIMIZERS["adamw"])
    trainer(max_steps=2, limit_val_batches=0, callbacks=[note], **made).fit(module, SharedTexts())
    return norms


def refused(folder: Path, strategy: str, settings: dict[str, Any]) -> str:
    """What is said to a run that cannot be."""
    try:
        fit(folder, strategy, **settings)
    except ValueError as error:
        return str(error)
    return ""


def overlay(folder: Path, name: str, *options: str) -> int:
    """Two steps of the task with an overlay, by the command line; its exit code."""
    own = {
        "--data.source": write_text(folder / "overlay.txt", lines=200),
        "--data.tokenizer": "Bytes",
        "--data.block_size": 19,
        "--data.batch_size": 3,
        "--trainer.max_steps": 2,
        "--trainer.val_check_interval": 2,
        "--trainer.accelerator": "cpu",
        "--trainer.logger.save_dir": folder / "logs",
        "--trainer.logger.name": name,
    }
    files = [ROOT / "configs" / file for file in ("pretrain.yaml", f"overlays/{name}.yaml")]
    return main(["fit", *(f"-c={file}" for file in files), *(f"{key}={value}" for key, value in own.items()), *options])


def comparisons(folder: Path) -> dict[str, Callable[[], Any]]:
    """Runs to compare with those of one process, and one that goes on three times."""
    made = {f"{run} {s}": partial(fit, folder, s, **settings) for run, settings in RUNS.items() for s in STRATEGIES}
    made |= {name: partial(fit, folder, name.rpartition(" ")[2], **settings) for name, settings in FROZEN.items()}
    made |= {f"classifier {s}": partial(classify, s) for s in ("ddp", "fsdp")}
    made |= {f"refused {name}": partial(refused, folder, *run) for name, run in REFUSED.items()}
    made["muon fsdp"] = partial(fit, folder, "fsdp", **MUON)
    return made | {f"leg {number}": partial(leg, folder, number) for number in range(3)}


def commands(folder: Path) -> dict[str, Callable[[], Any]]:
    """The overlays for several devices; the last one on two machines, by the hand of SLURM."""
    made = {name: partial(overlay, folder, name, "--trainer.devices=2") for name in ("ddp", "fsdp", "tensor_parallel")}
    return made | {"multi_node": partial(overlay, folder, "multi_node", "--trainer.devices=1")}


def variables(rank: int, port: int, name: str, world: int) -> dict[str, object]:
    """What launchers tell a rank by its environment."""
    if name != "multi_node":
        return {
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "NODE_RANK": 0,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
    job = {"JOB_ID": 1, "JOB_NAME": "fit", "NTASKS": 2, "NTASKS_PER_NODE": 1, "NODELIST": "127.0.0.1"}
    job |= {"PROCID": rank, "LOCALID": 0, "NODEID": rank}
    return {"MASTER_PORT": port} | {f"SLURM_{key}": value for key, value in job.items()}


def as_rank(rank: int, port: int, name: str, world: int, job: Callable[[], Any]) -> Any:
    """Do a job as one of some ranks, in a process group of its own."""
    before = dict(os.environ)
    os.environ.update({key: str(value) for key, value in variables(rank, port, name, world).items()})
    result = job()
    dist.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)
    return result


def free_port() -> int:
    """Below those that the system gives to connections: one of them may be taken again before it is used."""
    choose = random.SystemRandom()  # tests seed the other one
    while True:
        port = choose.randrange(20_000, 32_000)
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def on_ranks(jobs: dict[str, Callable[[], Any]], world: int = 2) -> dict[str, Any]:
    """Do jobs one after the other in this process and in forks of it; what this one, rank 0, finds."""
    ports = dict(zip(jobs, free_ports(len(jobs)), strict=True))
    others: list[int] = []
    for rank in range(1, world):
        if fork := os.fork():
            others.append(fork)
            continue
        try:
            for name, job in jobs.items():
                as_rank(rank, ports[name], name, world, job)
        except BaseException as error:
            traceback.print_exception(error)
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    try:
        return {name: as_rank(0, ports[name], name, world, job) for name, job in jobs.items()}
    except BaseException:
        for other in others:
            os.kill(other, signal.SIGKILL)
        raise
    finally:
        assert not any(os.waitpid(other, 0)[1] for other in others)


def compare(folder: Path) -> dict[str, Any]:
    """All runs on two ranks, and on one before and after them."""
    results: dict[str, Any] = {f"{name} one": fit(folder, "one", **RUNS[name]) for name in RUNS}
    results["muon one"] = fit(folder, "one", **MUON)
    results |= {
        f"{name.rpartition(' ')[0]} one": fit(folder, "one", **run) for name, run in FROZEN.items() if " ddp" in name
    }
    results["classifier one"] = classify("one")
    results |= on_ranks(comparisons(folder))
    return results | {"leg 3": leg(folder, 3)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[2])
    if sys.argv[1] == "compare":
        done = compare(where)
    elif sys.argv[1] == "commands":
        done = on_ranks(commands(where))
    else:
        done = {"one": fit(where, "one", max_steps=6)} | on_ranks({FOUR: partial(fit, where, FOUR, max_steps=6)}, 4)
    (where / "results.json").write_text(json.dumps(done))
