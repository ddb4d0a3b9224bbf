"""Low-rank adapters on disk: merged into the weights of a run, or alone in a folder of their own."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.lora import ADAPTER, LoRA, Update
from lit_llm.usage import home_path
from lit_llm.weights.families.names import Entry, Same, Transform
from lit_llm.weights.json_file import read_json
from lit_llm.weights.matching import some
from lit_llm.weights.safetensors_out import METADATA
from lit_llm.weights.source import Source

SETTINGS, WEIGHTS = "adapter.json", "adapter.safetensors"
VERSION = 1  # of the layout


@dataclass(frozen=True)
class Adapted:
    """A tensor of ours with its adapter in it, made of tensors of theirs."""

    transform: Transform
    update: Update
    check: Callable[[Tensor], None] | None = None

    def join(self, theirs: list[Tensor]) -> Tensor:
        """The merged weight."""
        weight = self.transform.join(theirs)
        if self.check is not None:
            self.check(weight)
        return self.update(weight)

    def split(self, ours: Tensor) -> list[Tensor]:
        """Tensors of theirs, of a weight that has no adapter."""
        return self.transform.split(ours)


def is_adapter(name: str) -> bool:
    """Whether a tensor of this name belongs to an adapter."""
    return name.rpartition(".")[2] in ADAPTER


def updates(tensors: Mapping[str, Tensor], settings: Any) -> dict[str, Update]:
    """What adapters do to weights, by the names of these.

    Args:
        tensors: Those of the adapters by name, and others.
        settings: The arguments of `LoRA` as a run has saved them.

    Raises:
        ValueError: If they are missing, or make no adapter.
    """
    owners = [name.rpartition(".")[0] for name in tensors if name.endswith(".lora_a")]
    if not owners:
        return {}
    if not isinstance(settings, dict):
        raise ValueError("its adapters are those of a module made in Python, and nothing says how they are scaled")
    scale = _lora(settings).scale
    return {
        f"{owner}.weight": Update(
            tensors[f"{owner}.lora_a"], tensors[f"{owner}.lora_b"], tensors.get(f"{owner}.lora_magnitude"), scale
        )
        for owner in owners
    }


def write_adapter(folder: Path, checkpoint: dict[str, Any]) -> None:
    """Write what a run has learned beside its base: `adapter.safetensors`, and `adapter.json` with the base's name.

    Args:
        folder: An empty one.
        checkpoint: As `read_checkpoint` gives it.

    Raises:
        ValueError: If the run has no adapters, did not start from weights, or has trained more of the backbone.
    """
    saved = checkpoint["hyper_parameters"]
    state = {
        name.removeprefix("backbone."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("backbone.")
    }
    adapters = {name: value.contiguous() for name, value in state.items() if is_adapter(name)}
    if not adapters:
        raise ValueError("its run has no adapters (--model.lora)")
    if not saved.get("init_from"):
        raise ValueError("its base are random weights that no file holds (no --model.init_from); take --format lit")
    if saved.get("random_start"):
        raise ValueError("its base are random weights that no file holds (--model.random_start); take --format lit")
    if saved.get("trainable") is not None:
        raise ValueError(
            f"its run may have trained weights of the base as well (trainable {saved['trainable']}), which an adapter "
            "alone leaves out; take --format hf or lit"
        )
    layers = sorted(updates(adapters, saved.get("lora")))
    base = home_path(saved["init_from"])
    content = {
        "version": VERSION,
        "base": str(base.resolve()) if base.exists() else saved["init_from"],
        "fingerprint": {name: fingerprint(state[name]) for name in (layers[0], layers[-1])},
        "lora": saved["lora"],
        "tokenizer": checkpoint.get("tokenizer"),
    }
    save_file(adapters, folder / WEIGHTS, METADATA)
    (folder / SETTINGS).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def fingerprint(weight: Tensor) -> str:
    """Of a weight, the same in every dtype that is no coarser than bfloat16."""
    values = weight.detach().to(device="cpu", dtype=torch.bfloat16).contiguous().view(torch.int16)
    return hashlib.blake2b(values.numpy().tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter that lies alone in a folder.

    Args:
        name: What to call it.
        base: The source that it was trained on.
        lora: Its rank, scale and kind.
        fingerprint: Of two weights of its base, by name.
        tensors: Its own, by the names of the backbone.
        tokenizer: State of the tokenizer of its run. None: there is none.
    """

    name: str
    base: str
    lora: LoRA
    fingerprint: dict[str, str]
    tensors: dict[str, Tensor]
    tokenizer: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> "StoredAdapter":
        """The adapter in a folder.

        Raises:
            ValueError: If a file of it is missing, damaged or of a later version.
        """
        content = read_json(folder / SETTINGS)
        if content.get("version") != VERSION:
            raise ValueError(f"'{folder}' has the version {content.get('version')}, and this lit-llm reads {VERSION}")
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            named = {name: content[name] for name in ("base", "fingerprint", "tokenizer")}
            stored = cls(str(folder), lora=_lora(content["lora"]), tensors=tensors, **named)
            updates(tensors, content["lora"])
            return stored
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"the adapter '{folder}' is damaged or incomplete: {error}") from error

    def check(self, name: str, weight: Tensor) -> None:
        """Refuse a weight of another base.

        Raises:
            ValueError: If it is none of the base that the adapter was trained on.
        """
        known = self.fingerprint.get(name)
        if known is not None and known != fingerprint(weight):
            raise ValueError(f"the adapter '{self.name}' was trained on other weights than these ({name} differs)")

    def check_fit(self, backbone: GPT) -> None:
        """Refuse a backbone whose layers are not those that the adapter changes.

        Raises:
            ValueError: If a tensor is missing, too many or of another shape, or a weight that of another base.
        """
        wanted = self.lora.shapes(backbone)
        there = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        if wrong := sorted({name for name, _ in wanted.items() ^ there.items()}):
            raise ValueError(f"the adapter '{self.name}' does not fit: {some(wrong)} is missing or of another shape")
        for name, weight in backbone.named_parameters():
            self.check(name, weight)

    def source(self, base: Source) -> Source:
        """The base with the adapter in it, a source like any other.

        Args:
            base: As `open_source` gives it.
        """
        changes = updates(self.tensors, asdict(self.lora))

        def entries(module: nn.Module) -> Sequence[Entry]:
            made = base.entries(module)
            if missing := sorted(changes.keys() - {entry.name for entry in made}):
                raise ValueError(f"the adapter '{self.name}' changes {some(missing)}, which '{self.base}' has not")
            return [self._adapted(entry, changes[entry.name]) if entry.name in changes else entry for entry in made]

        adapted = replace(base, name=self.name, entries=entries, module=None)
        return replace(adapted, tokenizer=self.tokenizer, folder=None) if self.tokenizer else adapted

    def _adapted(self, entry: Entry, update: Update) -> Entry:
        return replace(entry, transform=Adapted(entry.transform, update, lambda weight: self.check(entry.name, weight)))


def load_adapter(backbone: GPT, folder: str | Path) -> None:
    """Put the adapter in a folder on its base, where it stays apart and can go on to train; `lora.merge` merges it.

    Args:
        backbone: The base, without adapters.
        folder: As `lit-llm export --format adapter` writes it.

    Raises:
        ValueError: If it is damaged, or belongs to another base; the backbone is then as it was.
    """
    stored = StoredAdapter.read(Path(folder))
    stored.check_fit(backbone)
    stored.lora.adapt(backbone)
    with torch.no_grad():
        for name, tensor in stored.tensors.items():
            backbone.get_parameter(name).copy_(tensor)


def merging_entries(weights: Mapping[str, Tensor], settings: Any) -> Callable[[str, str], Entry]:
    """How a tensor of ours is made of one in a checkpoint of ours, whose adapters go into the weights.

    Args:
        weights: What the checkpoint holds.
        settings: The arguments of `LoRA` as it has saved them.

    Raises:
        ValueError: As in `updates`.
    """
    changes = updates(weights, settings)

    def entry(name: str, stored: str) -> Entry:
        update = changes.get(stored)
        return Entry(name, (stored,), Same() if update is None else Adapted(Same(), update))

    return entry


def _lora(settings: dict[str, Any]) -> LoRA:
    known = {each.name for each in fields(LoRA)}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"the settings of its adapters have {some(unknown)}, which is not known here")
    return LoRA(**settings)
