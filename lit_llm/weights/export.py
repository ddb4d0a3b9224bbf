"""lit-llm export."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_llm.usage import Parser

if TYPE_CHECKING:
    from lit_llm.weights.source import Source

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MARKS = ("config.json", "settings.json", "adapter.json")  # a folder with one of them holds a model


def run(args: list[str]) -> int:
    """Write a model as a folder that other programs load."""
    parser = Parser(
        prog="lit-llm export",
        description="Write a model as a folder that transformers, vLLM and llama.cpp's converter load.",
    )
    sources = "a .ckpt file, a run folder or a folder of runs; or a model of the Hugging Face hub, or a folder of one"
    parser.add_argument("--checkpoint", type=str, required=True, help=sources)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--format",
        type=Literal["hf", "lit", "adapter"],
        default="hf",
        help="Hugging Face's layout, ours for any backbone, or the adapters (--model.lora) alone",
    )
    parser.add_argument(
        "--dtype", type=Literal["fp32", "bf16", "fp16"] | None, default=None, help="of the weights; null: as they are"
    )
    parser.add_argument("--shard_size", type=float, default=5.0, help="gigabytes of a weights file at most")
    parser.add_argument("--overwrite", type=bool, default=False, help="whether a model in the folder is replaced")
    config = parser.parse_args(args[1:])
    if not config.shard_size > 0:
        raise ValueError(f"--shard_size {config.shard_size} cannot be: it is a positive number of gigabytes")
    out = config.out.expanduser()
    check_target(out, config.overwrite)

    import torch

    from lit_llm.weights.adapters import write_adapter
    from lit_llm.weights.exporting import Exported
    from lit_llm.weights.open import open_with_checkpoint

    source, checkpoint = open_with_checkpoint(config.checkpoint)
    if config.format == "adapter":
        if config.dtype is not None:
            raise ValueError(f"--dtype {config.dtype} is not for an adapter, which stays as it is; leave it out")
        if not checkpoint:
            raise ValueError(f"'{source.name}' is no checkpoint of a run, and only those have an adapter to write")
        refuse_adapter(source, checkpoint)
        write_whole(out, lambda folder: write_adapter(folder, checkpoint))
        print(f"{out}: an adapter of '{checkpoint['hyper_parameters']['init_from']}' from {source.name}")
        return 0
    dtype = getattr(torch, DTYPES[config.dtype]) if config.dtype else None
    try:
        exported = Exported.of(source, checkpoint, own_layout=config.format == "lit")
    except ValueError as error:
        said = str(error) if source.name in str(error) else f"'{source.name}' cannot be exported: {error}"
        raise ValueError(said) from error
    write_whole(out, lambda folder: exported.write(folder, dtype, int(config.shard_size * 1e9)))
    print(f"{out}: {exported} from {source.name}")
    return 0


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a target that would be lost.

    Raises:
        ValueError: If it is a file, a folder that is not empty, or, to be overwritten, one that holds no model.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out '{out}' is a file; name a folder that is not there yet")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise ValueError(f"the folder '{out}' is not empty; choose another, or replace it with --overwrite true")
        if not any((out / name).is_file() for name in MARKS):
            raise ValueError(f"the folder '{out}' holds something else than a model and is not overwritten")


def refuse_adapter(source: "Source", checkpoint: dict[str, Any]) -> None:
    """Refuse an adapter that would leave out a part of what its run computes.

    Raises:
        ValueError: If the run has an output layer of its own beside the backbone, or more tokens than its base.
    """
    from lit_llm.weights.open import open_source

    if not source.is_language_model:
        raise ValueError(
            f"'{source.name}' has an output layer beside its backbone, which an adapter alone leaves out; take "
            "--format hf, which merges the adapter"
        )
    base = checkpoint["hyper_parameters"].get("init_from")
    if base is None or checkpoint["hyper_parameters"].get("random_start"):
        return
    known, rows = (each.settings["init_args"]["vocab_size"] for each in (open_source(base), source))
    if rows > known:
        raise ValueError(
            f"'{source.name}' has rows for {rows - known} tokens that its base '{base}' has not (--data.new_tokens), "
            "and an adapter alone leaves them out; take --format hf, which merges the adapter"
        )


def write_whole(out: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside its place, then rename it: it is there as a whole or not at all.

    Raises:
        ValueError: If it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.part-", dir=out.parent) as work:
            new, old = Path(work, "new"), Path(work, "old")
            new.mkdir()
            write(new)
            if out.exists():
                os.replace(out, old)
            os.replace(new, out)
    except OSError as error:
        raise ValueError(f"cannot write '{out}': {error.strerror or error}") from error
