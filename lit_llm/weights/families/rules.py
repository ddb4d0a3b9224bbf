"""What a key of their config.json says about arguments of ours, and back."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from lit_llm.weights.families.flat import Flat

# Keys that every config.json may hold and that change no logit: bookkeeping, ids of tokens, outputs, training.
HARMLESS = re.compile(
    r"""_\w+ | architectures | auto_map | model_type | name_or_path | transformers(_version|\.js_config) |
    (torch_)?dtype | torchscript | \w+_token_id | use_cache | cache_implementation | return_dict | output_\w+ |
    generation_config | prefix | bad_words_ids | tokenizer_class | id2label | label2id | num_labels |
    problem_type | finetuning_task | decision_threshold |
    task_specific_params | summary_\w+ | classifier_dropout | attention_dropout | hidden_dropout | \w+_pdrop | n_ctx |
    initializer_range | gradient_checkpointing | attn_implementation | reorder_and_upcast_attn | pretraining_tp |
    router_aux_loss_coef | router_jitter_noise | is_decoder | is_encoder_decoder | chunk_size_feed_forward |
    unsloth_\w+""",
    re.VERBOSE,
)


class Config(Mapping[str, Any]):
    """Their config.json, which remembers the keys that were asked for.

    Args:
        values: The content of the file.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def unread(self) -> list[str]:
        """Keys that nobody asked for, that say something, and that are not known to be harmless."""
        return [
            key
            for key, value in self._values.items()
            if key not in self._read and not HARMLESS.fullmatch(key) and value not in (None, False, "", [], {})
        ]


class Rule(Protocol):
    """One statement in two languages."""

    def read(self, config: Config) -> Flat:
        """Our arguments, from their config.

        Raises:
            ValueError: If it says what we cannot compute.
        """

    def write(self, facts: Flat) -> dict[str, Any]:
        """Their keys, from what a backbone is. What they cannot say shows when they are read again."""


REQUIRED = object()  # the default of a key that every config has


@dataclass(frozen=True)
class Key:
    """A key that is an argument, or several of the same value.

    Args:
        keys: Theirs: as it is written, and after blanks the other names that it has had.
        paths: Ours, one or several with blanks between them.
        default: What a config without the key means.
    """

    keys: str
    paths: str
    default: Any = REQUIRED

    def read(self, config: Config) -> Flat:
        """The same value."""
        value = next((config[key] for key in self.keys.split() if key in config), self.default)
        if value is REQUIRED:
            raise ValueError(f"the config has no {self.keys.split()[0]}, which a '{config.get('model_type')}' needs")
        return dict.fromkeys(self.paths.split(), value)

    def write(self, facts: Flat) -> dict[str, Any]:
        """The same value, of the first of the arguments that there is."""
        return {self.keys.split()[0]: next((facts[path] for path in self.paths.split() if path in facts), None)}


@dataclass(frozen=True)
class Only:
    """A key that is understood in one value alone, which need not be said."""

    key: str
    value: Any

    def read(self, config: Config) -> Flat:
        """Nothing, or a refusal."""
        if (said := config.get(self.key, self.value)) not in (self.value, None):
            raise ValueError(f"the config's {self.key} is {said!r}; only {self.value!r} is known here")
        return {}

    def write(self, facts: Flat) -> dict[str, Any]:
        """The value."""
        return {self.key: self.value}


# The first name of an equal one is written.
ACTIVATIONS: dict[str, Flat] = {
    "silu": {"": nn.SiLU},
    "swish": {"": nn.SiLU},
    "gelu_new": {"": nn.GELU, ".approximate": "tanh"},
    "gelu_pytorch_tanh": {"": nn.GELU, ".approximate": "tanh"},
    "gelu": {"": nn.GELU, ".approximate": "none"},
    "relu": {"": nn.ReLU},
}


@dataclass(frozen=True)
class Activation:
    """The name of an activation.

    Args:
        key: Theirs.
        paths: Ours, one or several with blanks between them.
        default: What a config without the key means.
        tanh: How this family calls the GELU with a tanh, which has two names.
        gelu: What it means by "gelu".
    """

    key: str
    paths: str
    default: str
    tanh: str = "gelu_pytorch_tanh"
    gelu: str = "gelu"

    def read(self, config: Config) -> Flat:
        """The class."""
        name = config.get(self.key) or self.default
        if name not in ACTIVATIONS:
            raise ValueError(f"the config's {self.key} is {name!r}; known are {', '.join(ACTIVATIONS)}")
        flat = ACTIVATIONS[self.gelu if name == "gelu" else name]
        return {path + end: value for path in self.paths.split() for end, value in flat.items()}

    def write(self, facts: Flat) -> dict[str, Any]:
        """The name; the default's for a class that has none."""
        path = next((path for path in self.paths.split() if path in facts), "")
        ours = {end: facts.get(path + end) for end in ("", ".approximate")}
        names = [name for name, flat in ACTIVATIONS.items() if {"": None, ".approximate": None} | flat == ours]
        return {self.key: self.tanh if self.tanh in names else next(iter(names), self.default)}
