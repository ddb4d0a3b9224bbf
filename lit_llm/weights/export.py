"""lit-llm export."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lit_llm.usage import Parser

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MARKS = ("config.json", "settings.json")  # a folder with one of them holds a model


def run(args: list[str]) -> int:
    """Write a checkpoint as a folder that other programs load."""
    parser = Parser(
        prog="lit-llm export",
        description="Write a checkpoint as a folder that transformers, vLLM and llama.cpp's converter load.",
    )
    parser.add_argument("--checkpoint", type=str, required=True, help="a .ckpt file, a run folder, or a folder of runs")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--format", type=Literal["hf", "lit"], default="hf", help="Hugging Face's layout, or ours for any backbone"
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

    from lit_llm.weights.checkpoint import open_checkpoint
    from lit_llm.weights.exporting import Exported

    file, checkpoint = open_checkpoint(config.checkpoint)
    dtype = getattr(torch, DTYPES[config.dtype]) if config.dtype else None
    try:
        exported = Exported.of(file, checkpoint, own_layout=config.format == "lit")
    except ValueError as error:
        raise ValueError(f"'{file}' cannot be exported: {error}") from error
    write_whole(out, lambda folder: exported.write(folder, dtype, int(config.shard_size * 1e9)))
    print(f"{out}: {exported} from {file}")
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
