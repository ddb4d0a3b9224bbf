"""Weights that a model can start from, whoever wrote them."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_llm.backbone import GPT
from lit_llm.backbone.lora import adapter_names
from lit_llm.weights.build import build, fill, tensors_of
from lit_llm.weights.families.names import Entry
from lit_llm.weights.matching import Stored, leftovers, some

ALLOW = "LIT_LLM_ALLOW_NONFINITE"  # an environment variable: nobody should have it in a config

TOKENIZERS = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class Filled:
    """What became of the tensors of a source.

    Args:
        source: Its name.
        loaded: Tensors of ours that were filled.
        parameters: Numbers in them.
        new: Tensors of ours that it does not have.
        dropped: Tensors of its own that were not needed.
    """

    source: str
    loaded: int
    parameters: int
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        """In one line."""
        kinds = {"new": self.new, "dropped": self.dropped}
        others = [f"{kind}: {some(names)}" for kind, names in kinds.items() if names]
        text = f"started from '{self.source}': {self.loaded} tensors with {self.parameters:,} parameters loaded"
        return "; ".join([text, *(others or ["none new, none dropped"])])


@dataclass(frozen=True)
class Classes:
    """The classes that a source tells apart.

    Args:
        names: In the order of their scores.
        head: Name of the stored tensor that makes scores of a text's vector.
        threshold: Name of the stored probability from which on the second of two classes is answered; it may be absent.
    """

    names: tuple[str, ...]
    head: str
    threshold: str


@dataclass(frozen=True)
class Source:
    """Weights under the names of who wrote them, and the architecture that they belong to.

    Args:
        name: As the user says it.
        settings: The architecture, as configs and checkpoints hold it.
        stored: What there is, by name.
        read: A tensor by its name, in the memory of its file.
        entries: How each tensor of a module is made of those.
        is_harmless: Whether a tensor that no entry names may be left out.
        folder: Where the files of the tokenizer lie. None: in no folder.
        tokenizer: State of the tokenizer. None: there is none, or it lies in the folder.
        module: The LightningModule that wrote them. None: none, or one that cannot be imported here.
        model_type: The family whose layout it is in. None: in our own.
        classes: The classes that its head tells apart. None: it has no such head.
        is_language_model: Whether its output layer was trained to continue texts.
        max_length: Tokens of a text at most, beside those that the backbone has positions for.
    """

    name: str
    settings: dict[str, Any]
    stored: Mapping[str, Stored]
    read: Callable[[str], Tensor]
    entries: Callable[[nn.Module], Sequence[Entry]]
    is_harmless: Callable[[str], bool]
    folder: Path | None = None
    tokenizer: dict[str, Any] | None = None
    module: type | None = None
    model_type: str | None = None
    classes: Classes | None = None
    is_language_model: bool = True
    max_length: float = math.inf

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer comes along, whatever it is worth."""
        return bool(self.tokenizer) or any((self.folder / name).exists() for name in TOKENIZERS if self.folder)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of most of the numbers."""
        numbers: dict[torch.dtype, int] = {}
        for stored in self.stored.values():
            if isinstance(stored.dtype, torch.dtype) and stored.dtype.is_floating_point:
                numbers[stored.dtype] = numbers.get(stored.dtype, 0) + torch.Size(stored.shape).numel()
        return max(numbers, key=lambda dtype: numbers[dtype], default=torch.float32)

    def backbone(self, dtype: torch.dtype | None = None, allow_nonfinite: bool = False) -> GPT:
        """The network, in eval mode; made without memory and filled tensor by tensor.

        Args:
            dtype: Of its parameters. None: that of most of the stored ones.
            allow_nonfinite: As in `fill`.

        Raises:
            ValueError: As in `fill`.
        """
        try:
            backbone = build(self.settings, "meta")
            if next(backbone.buffers(), None) is not None:  # a part's own, with values that no file holds
                backbone = build(self.settings)
        except ValueError as error:
            raise ValueError(f"'{self.name}' cannot be used: {error}") from error
        self.fill(backbone, dtype or self.dtype, allow_nonfinite)
        if any(parameter.is_meta for parameter in backbone.parameters()):
            _start_head(backbone, dtype or self.dtype)
        return backbone

    def fill(self, module: nn.Module, dtype: torch.dtype, allow_nonfinite: bool = False) -> Filled:
        """Give a module its parameters, each in memory of its own: the files may be deleted then.

        Args:
            module: A backbone, or the whole of a module that has written such weights.
            dtype: Of the parameters.
            allow_nonfinite: Whether weights may be infinite or NaN; LIT_LLM_ALLOW_NONFINITE=1 allows it as well.

        Raises:
            ValueError: If a tensor is missing, unknown, of another shape, of a dtype that no weight has, not finite,
                or a second copy that differs from the first.
        """
        own = tensors_of(module)
        entries = self.entries(module)
        try:
            dropped = leftovers(entries, own, self.stored, self.is_harmless)
        except ValueError as error:
            raise ValueError(f"the weights of '{self.name}' do not fit the model; {error}") from error
        for entry in entries:
            for copy in entry.copies:
                if copy in self.stored and not torch.equal(self.read(copy), self.read(entry.theirs[0])):
                    raise ValueError(
                        f"'{self.name}' has the tied weights {entry.theirs[0]} and {copy}, which differ; say in its "
                        "config.json that they are not tied (tie_word_embeddings)"
                    )
        is_allowed = allow_nonfinite or os.environ.get(ALLOW, "0") not in ("", "0")
        fill(module, self.read if is_allowed else self._read_finite, entries, dtype)
        filled = {entry.name for entry in entries}
        return Filled(
            self.name,
            len(filled),
            sum(own[name].numel() for name in filled),
            (*(name for name in own if name not in filled), *sorted(adapter_names(module))),
            tuple(dropped),
        )

    def _read_finite(self, name: str) -> Tensor:
        tensor = self.read(name)
        if tensor.numel() and not all(bound.isfinite() for bound in tensor.aminmax()):  # without a copy
            raise ValueError(
                f"'{self.name}' holds weights in {name} that are infinite or NaN; {ALLOW}=1 in the environment takes "
                "them as they are"
            )
        return tensor


def _start_head(backbone: GPT, dtype: torch.dtype) -> None:
    """Give an output layer that the source does not have the weights that a new one begins with."""
    for parameter in backbone.head.to_empty(device="cpu").to(dtype).parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.zeros_(parameter)
