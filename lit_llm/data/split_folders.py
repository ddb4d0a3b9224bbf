"""Folders whose files or sub-folders are named after splits: train.jsonl and val.jsonl, train/ and test/."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SHARD = re.compile(r"[-_.]\d+([-_]of[-_]\d+)?$")  # train-00000-of-00002
METADATA = {"dataset_infos.json", "dataset_info.json", "state.json"}  # of the datasets library, beside the data


def split_folder(folder: Path, suffixes: Sequence[str]) -> tuple[dict[str, list[Path]], str | None]:
    """The files of each split, where a folder is divided by names.

    It is if files `train.*` and `val.*` or `test.*` have one suffix and no other file of the folder has it, or if
    sub-folders `train` and `val` or `test` hold all files that can be read. The words for validation are val, valid,
    validation and dev; a number of a shard may follow a word.

    Args:
        folder: The folder.
        suffixes: Of the files that can be read.

    Returns:
        The files by split, train among them, or nothing; and a line where names pair up among other files, which do
        not say what they are for.
    """
    files, odd = _by_name([path for path in _entries(folder) if path.is_file()], suffixes)
    folders = {path: list(readable_files(path, suffixes)) for path in _entries(folder) if path.is_dir()}
    folders = {path: within for path, within in folders.items() if within}
    inside: dict[str, list[Path]] = defaultdict(list)
    for path, within in folders.items():
        inside[WORDS.get(path.name.lower(), "")] += within
    if _pairs(files):
        used = {_suffix(path, suffixes) for paths in files.values() for path in paths}
        others = [path for path in odd if _suffix(path, suffixes) in used]
        if len(used) == 1 and not others and not folders:
            return files, None
        return {}, _ambiguous(folder, files)
    if _pairs(inside):
        if not inside[""] and not files and not odd:
            return {split: paths for split, paths in inside.items() if paths}, None
        return {}, _ambiguous(folder, inside)
    return {}, None


def readable_files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Files below a folder that can be read, sorted."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and _suffix(path, suffixes))


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in METADATA)


def _by_name(paths: Sequence[Path], suffixes: Sequence[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files by the split that they are named after, and the others that can be read."""
    found: dict[str, list[Path]] = defaultdict(list)
    odd: list[Path] = []
    for path in paths:
        if suffix := _suffix(path, suffixes):
            word = SHARD.sub("", path.name[: -len(suffix)].lower())
            (found[WORDS[word]] if word in WORDS else odd).append(path)
    return found, odd


def _suffix(path: Path, suffixes: Sequence[str]) -> str:
    """The longest suffix that a file has, in any case; none if it cannot be read."""
    return max((each for each in suffixes if path.name.lower().endswith(each)), key=len, default="")


def _pairs(found: dict[str, list[Path]]) -> bool:
    return bool(found.get("train") and (found.get("val") or found.get("test")))


def _ambiguous(folder: Path, found: dict[str, list[Path]]) -> str:
    names = " and ".join(
        found[split][0].relative_to(folder).parts[0] for split in ("train", "val", "test") if found.get(split)
    )
    return f"'{folder}' holds {names} among other files, so its names say nothing of splits; name them one by one"
