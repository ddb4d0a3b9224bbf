"""lit-llm classify."""

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lit_llm.inference.device import add_device, device_of
from lit_llm.inference.options import SOURCE
from lit_llm.terminal import lines_of_stdin, typed
from lit_llm.usage import Parser

if TYPE_CHECKING:
    from lit_llm.data.tokenizer import Tokenizer
    from lit_llm.modules import Classification


def run(args: list[str]) -> int:
    """Tell the class of texts; the answers go to stdout, and nothing else does."""
    config = parser().parse_args(args[1:])
    if config.batch_size < 1:
        raise ValueError(f"--batch_size {config.batch_size} cannot be: it is at least 1")
    if not config.texts and sys.stdin.isatty():
        raise ValueError("there is no text; give one in quotes, or one a line on stdin")
    device = device_of(config)
    classifier = Classifier.from_checkpoint(config.checkpoint)
    classifier.module.to(device)
    texts = map(typed, config.texts) if config.texts else lines_of_stdin()
    place, cut = 0, 0
    while batch := list(islice(texts, config.batch_size)):
        answers, truncated = classifier.classify(batch, place)
        for label, probability in answers:
            print(f"{label}\t{probability:.4f}")
        sys.stdout.flush()
        place, cut = place + len(batch), cut + truncated
    if cut:
        print(f"{cut} of {place} texts are longer than {classifier.block_size} tokens and were cut", file=sys.stderr)
    return 0


def parser() -> Parser:
    """The options."""
    parser = Parser(
        prog="lit-llm classify",
        description=(
            "Tell the class of each text: a line with the label and its probability, separated by a tab. An empty line "
            "is a text as well and gets an answer, so that answers stand where their texts stand."
        ),
    )
    add = parser.add_argument
    add("--checkpoint", type=str, required=True, help=SOURCE)
    add("--batch_size", type=int, default=32, help="texts that are read and answered at once")
    add_device(parser)
    add("texts", type=str, nargs="*", help="texts, each in quotes; none: one a line on stdin")
    return parser


class Classifier:
    """A trained classification with its tokenizer.

    Args:
        module: The model.
        tokenizer: Turns texts into ids.
        block_size: Longest text in tokens; what follows is cut off.
    """

    def __init__(self, module: "Classification", tokenizer: "Tokenizer", block_size: int) -> None:
        self.module, self.tokenizer, self.block_size = module.eval(), tokenizer, block_size

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Self:
        """Load both from a checkpoint, or from a classifier in Hugging Face's layout; no code in it is run.

        Args:
            path: A `.ckpt` file, a run folder or a folder of runs; a model of the hub or a folder of one.

        Raises:
            ValueError: If there is none, it is damaged, of another task, or holds no tokenizer.
        """
        from lit_llm.data.tokenizer import from_state
        from lit_llm.modules import Classification
        from lit_llm.weights.checkpoint import module_class, open_checkpoint
        from lit_llm.weights.open import find_folder, is_model_folder

        folder = find_folder(path)
        if is_model_folder(folder):
            return cls._from_folder(path)
        file, checkpoint = open_checkpoint(folder)
        wrote = module_class(checkpoint)
        if wrote is None or not issubclass(wrote, Classification):
            name = "a module that cannot be imported here" if wrote is None else wrote.__qualname__
            raise ValueError(f"'{file}' is a checkpoint of {name}, and only one of Classification tells classes")
        if not checkpoint.get("tokenizer"):
            raise ValueError(f"'{file}' comes without a tokenizer, and only with one can texts be read")
        module = wrote.load_from_checkpoint(file, map_location="cpu", weights_only=True)
        return cls(
            module, from_state(checkpoint["tokenizer"]), checkpoint.get("block_size", module.backbone.block_size)
        )

    @classmethod
    def _from_folder(cls, path: str | Path) -> Self:
        import torch

        from lit_llm.data.pretrained import come_along
        from lit_llm.modules import Classification
        from lit_llm.weights.open import open_source

        source = open_source(path)
        if (classes := source.classes) is None:
            what = "a language model" if source.is_language_model else "not a classifier that chooses one class"
            raise ValueError(f"'{source.name}' is {what}; lit-llm classify needs a trained Classification")
        tokenizer = come_along(source)
        module = Classification(source.backbone(torch.float32), list(classes.names))
        state = module.state_dict()
        for name, stored in (("head.weight", classes.head), ("threshold", classes.threshold)):
            if stored in source.stored:
                state[name].copy_(source.read(stored))
        return cls(module, tokenizer, int(min(source.max_length, module.backbone.block_size)))

    def classify(self, texts: list[str], first: int = 0) -> tuple[list[tuple[str, float]], int]:
        """The label of each text with its probability, and how many texts were cut.

        The answer is the class that the checkpoint's threshold decides for; its probability may then be below one half.

        Args:
            texts: At least one; white space around them does not count, as in training.
            first: Number of the first one among all, from 0, for what is refused of one.
        """
        import numpy as np
        import torch
        from lightning.pytorch.utilities import move_data_to_device

        from lit_llm.batch import IGNORE_INDEX
        from lit_llm.data.tables import cleaned
        from lit_llm.data.texts import Texts

        unknown = np.full(len(texts), IGNORE_INDEX)
        known_form = list(map(cleaned, texts))
        rows = np.arange(first, first + len(texts))
        encoded = Texts(known_form, unknown, rows, self.tokenizer, self.block_size)
        batch = move_data_to_device(encoded.__getitems__(range(len(texts))), self.module.device)
        with torch.inference_mode():
            columns: dict[str, Any] = self.module.predict_step(batch, 0)
        labels = columns["label"]
        return [(label, columns[f"p_{label}"][row]) for row, label in enumerate(labels)], encoded.truncated
