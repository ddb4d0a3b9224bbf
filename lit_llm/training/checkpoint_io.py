"""How checkpoint files are written: whole or not at all."""

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn


class CheckpointError(OSError):
    """A checkpoint that could not be written."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, then renames: a kill at any moment leaves the old one.

    Lightning writes to TMPDIR and moves from there, which is a copy, and can be cut, if that is another file system.
    Every record of the file carries a CRC-32, written by torch and checked by `read_checkpoint`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write, or leave everything as it was.

        Raises:
            CheckpointError: If the file cannot be written; the message says how much room there is.
        """
        path = Path(path)
        part = path.with_name(f"{path.name}.part-{socket.gethostname()}-{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_folder(path.parent)
        except (OSError, RuntimeError) as error:  # torch's writer turns some of the former into the latter
            needed, free = _size(checkpoint) / 1e6, free_bytes(path.parent) / 1e6
            raise CheckpointError(
                f"cannot write the checkpoint '{path}' ({_cause(error)}; it needs {needed:.0f} MB, and there are "
                f"{free:.0f} MB); the one before is as it was"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint; one that stays is no reason to stop a run."""
        try:
            super().remove_checkpoint(path)
        except OSError as error:
            rank_zero_warn(f"the checkpoint '{path}' could not be removed ({error.strerror or error})")


class AsyncWholeFiles(AsyncCheckpointIO):
    """`WholeFiles` in a thread: the run goes on while the disk writes, and fails with the next save if one has failed.

    It costs a copy of the weights and of the optimizer's state in memory.
    """

    @property
    def checkpoint_io(self) -> WholeFiles:
        """What the thread writes with."""
        return WholeFiles()

    @checkpoint_io.setter
    def checkpoint_io(self, base_checkpoint_io: Any) -> None:
        """Nothing: a strategy puts Lightning's own in there each time that it is asked (lightning 2.6)."""


def sweep(folder: Path) -> None:
    """Remove what runs that were killed on this machine in the middle of a save have left in a folder."""
    for part in folder.glob(f"*.part-{socket.gethostname()}-*"):
        if os.name == "posix" and not _is_alive(int(part.name.rpartition("-")[2])):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename last beyond a power cut; where folders cannot be opened, the system does it by itself."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cause(error: BaseException) -> str:
    """What the system said, from behind what torch made of it."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return str(error).split("\n")[0]


def _size(value: Any) -> int:
    """Bytes of the tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, parts))


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which may be yet to be made."""
    return shutil.disk_usage(_existing(folder)).free


def unwritable(folder: Path) -> str | None:
    """Why no file can be written to a folder, which may be yet to be made; None if one can."""
    existing = _existing(folder)
    if not existing.is_dir():
        return f"'{existing}' is a file"
    try:
        TemporaryFile(dir=existing).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the first above it that exists; a name that the system refuses exists nowhere."""
    exists, folder = os.path.exists, folder.absolute()
    return next(each for each in (folder, *folder.parents) if exists(each))
