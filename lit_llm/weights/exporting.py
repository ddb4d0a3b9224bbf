"""A trained model as the files of a folder: in the layout of its Hugging Face family, or in our own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lit_llm.backbone import GPT
from lit_llm.data.chat_encoding import ends_of_texts
from lit_llm.data.huggingface import tokenizer_files
from lit_llm.data.pretrained import come_along
from lit_llm.data.tokenizer import Tokenizer, to_state
from lit_llm.weights.classes import HEAD, INSTEAD, SCORE, classes_config, refuse_other_scores
from lit_llm.weights.families import FAMILIES, Family, family_for
from lit_llm.weights.lit_folder import SETTINGS, lit_settings
from lit_llm.weights.model_card import model_card
from lit_llm.weights.safetensors_out import Parted, write_tensors
from lit_llm.weights.source import Classes, Source


@dataclass(frozen=True)
class Same:
    """A tensor under our own name."""

    name: str

    @property
    def theirs(self) -> tuple[str]:
        """The name."""
        return (self.name,)

    def split(self, ours: Tensor) -> list[Tensor]:
        """The tensor."""
        return [ours]


@dataclass(frozen=True)
class Exported:
    """What is written of a source.

    Args:
        source: Where it comes from.
        checkpoint: What it holds beside the weights, if it is a checkpoint.
        backbone: The network in it.
        tokenizer: The tokenizer in it. None: there is none.
        family: Whose layout is written. None: our own.
        classes: The classes that it tells apart. None: it is a language model.
    """

    source: Source
    checkpoint: dict[str, Any]
    backbone: GPT
    tokenizer: Tokenizer | None
    family: Family | None
    classes: Classes | None = None

    @classmethod
    def of(cls, source: Source, checkpoint: dict[str, Any], own_layout: bool = False) -> Self:
        """Everything that can be refused is refused here, before anything is written.

        What came in the layout of a family goes out in that one; a checkpoint, in the first one that can express it.

        Raises:
            ValueError: If the source cannot be used, no family can express its backbone, its tokenizer has more ids
                than the backbone, or it is a classifier whose scores nothing there computes.
        """
        if own_layout and not source.is_language_model:
            raise ValueError(f"our own layout has no place for the output layer of a classifier{INSTEAD}")
        backbone = source.backbone()
        tokenizer = come_along(source) if source.has_tokenizer else None
        if tokenizer is not None and tokenizer.vocab_size > backbone.vocab_size:
            raise ValueError(f"its tokenizer has {tokenizer.vocab_size} ids and its backbone {backbone.vocab_size}")
        try:
            family = FAMILIES[source.model_type] if source.model_type else None
            family = None if own_layout else family or family_for(source.settings)
        except ValueError as error:
            open_way = "; --format lit writes it in our own layout" if source.is_language_model else INSTEAD
            raise ValueError(f"{error}{open_way}") from error
        classes = None
        if family is not None and not source.is_language_model:
            classes = refuse_other_scores(source, checkpoint, family.classifier)
            _padding(tokenizer)
        exported = cls(source, checkpoint, backbone, tokenizer, family, classes)
        if family is not None:
            exported._texts(family, torch.float32)
        return exported

    def __str__(self) -> str:
        """In a few words."""
        layout = f"a '{self.family.model_type}'" if self.family else "a model in our own layout"
        layout += (
            f" ({self.family.classifier}: {', '.join(self.classes.names)})" if self.family and self.classes else ""
        )
        return f"{layout} with {self.backbone.num_parameters():,} parameters"

    def write(self, folder: Path, dtype: torch.dtype | None, shard_size: int) -> None:
        """Write all files.

        Args:
            folder: An empty one.
            dtype: Of the weights. None: as they are.
            shard_size: Bytes of a weights file at most.
        """
        entries, state = self._entries(), self.backbone.state_dict()
        if self.classes is not None:
            state[SCORE] = self.source.read(self.classes.head)
        state = {entry.name: state[entry.name] for entry in entries}
        dtype = dtype or next(iter(state.values())).dtype
        write_tensors(folder, state, entries, dtype, shard_size)
        model_type = self.family.model_type if self.family else None
        texts = self._texts(self.family, dtype) if self.family else self._own_texts()
        numbers = sum(tensor.numel() for tensor in state.values())
        texts["README.md"] = model_card(self.source, self.checkpoint, numbers, model_type, self.threshold)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    def _entries(self) -> Sequence[Parted]:
        """The tensors to write, under the spelling that they came in: some families have had several."""
        if self.family is None:
            return [Same(name) for name in self.backbone.state_dict()]
        known = self.source.stored.keys() if self.source.model_type else None
        entries: list[Parted] = [*self.family.entries(self.backbone, known)]
        if self.classes is not None:
            entries = [*(entry for entry in entries if entry.name not in HEAD), Same(SCORE)]
        return entries

    @property
    def threshold(self) -> float | None:
        """The probability from which on the second of two classes is answered. None: no such choice was made."""
        is_there = self.classes is not None and self.classes.threshold in self.source.stored
        return self.source.read(self.classes.threshold).item() if self.classes and is_there else None

    def _texts(self, family: Family, dtype: torch.dtype) -> dict[str, str]:
        config = family.config(self.source.settings, dtype) | self._ends()
        if self.classes is not None:
            config |= classes_config(family.classifier, self.classes, self.threshold)
            config["pad_token_id"] = _padding(self.tokenizer)[1]
        texts = {"config.json": json.dumps(config, indent=2)}
        if self.tokenizer is not None:
            texts |= tokenizer_files(self.tokenizer, self.backbone.block_size)
        if self.classes is not None:
            length = self.checkpoint.get("block_size", min(self.source.max_length, self.backbone.block_size))
            padding = {"pad_token": _padding(self.tokenizer)[0], "padding_side": "right", "model_max_length": length}
            settings = json.loads(texts["tokenizer_config.json"]) | padding
            return texts | {"tokenizer_config.json": json.dumps(settings, ensure_ascii=False, indent=2)}
        return texts | {"generation_config.json": json.dumps(self._ends(), indent=2)}

    def _own_texts(self) -> dict[str, str]:
        tokenizer = None if self.tokenizer is None else to_state(self.tokenizer)
        return {SETTINGS: lit_settings(self.source.settings, tokenizer)}

    def _ends(self) -> dict[str, int | list[int] | None]:
        """The ids around a text, as a generation needs them; batches are padded with the end."""
        begin = self.tokenizer.begin_of_text if self.tokenizer else None
        end = self.tokenizer.end_of_text if self.tokenizer else None
        ends = ends_of_texts(self.tokenizer) if self.tokenizer else []
        return {
            "bos_token_id": end if begin is None else begin,
            "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
            "pad_token_id": end,
        }


def _padding(tokenizer: Tokenizer | None) -> tuple[str, int]:
    """A special token that no text ends with: transformers takes the last token that is another one.

    Raises:
        ValueError: If there is none.
    """
    if tokenizer is None:
        raise ValueError(f"it comes without a tokenizer, and a classifier needs one{INSTEAD}")
    names = {i: name for name, i in tokenizer.special_ids.items()}
    wanted = (tokenizer.end_of_text, tokenizer.begin_of_text, *names)
    found = next((i for i in wanted if i is not None and i in names), None)
    if found is None:
        raise ValueError(
            "its tokenizer has no special token that can pad a batch, which transformers needs to find the last token "
            f"of a text{INSTEAD}"
        )
    return names[found], found
