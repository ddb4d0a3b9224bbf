"""What commands share that take the config of `fit` and make something else of it: bench, plan, data show."""

import logging
import warnings
from typing import Any, ClassVar

from lightning import Trainer
from lightning.pytorch.cli import LightningCLI

from lit_llm.cli import CLI


class OtherCommand(CLI):
    """The command line of `fit`, of which another command makes something else.

    Args:
        args: `fit` and its options, and those of the other command.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    no_checkpoint: ClassVar[str]  # why it has no use for one

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Call both parsers by the words that the user types."""
        super().setup_parser(*args, **kwargs)
        for parser in (self.parser, self._parser("fit")):
            parser.prog, parser.description = f"lit-llm {self.name}", self.description

    def before_instantiate_classes(self) -> None:
        """Refuse what `fit` refuses, and a checkpoint."""
        if self.options.get("ckpt_path") is not None:
            raise ValueError(
                f"{self.name} has no use for --ckpt_path {self.options.ckpt_path}: {self.no_checkpoint}; leave it out"
            )
        super().before_instantiate_classes()

    def _add_instantiators(self) -> None:
        """Lightning's alone: there is no end of a training that could fail."""
        LightningCLI._add_instantiators(self)

    def after_fit(self) -> None:
        """Test nothing: there is no training whose result could be tested."""

    @property
    def options(self) -> Any:
        """What was parsed: the options of `fit`, and those of this command beside them."""
        return self.config["fit"]


def silent_trainer(precision: str = "32-true", batches: int = 1) -> Trainer:
    """A Trainer that trains nothing: what a module asks for its settings, and what knows about precision.

    Args:
        precision: As `trainer.precision`.
        batches: As `trainer.accumulate_grad_batches`.
    """
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a GPU is not used, that fp16 is bf16 on a CPU: of equal size
            names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
            settings: dict[str, Any] = {"precision": precision, "accumulate_grad_batches": batches}
            settings |= dict.fromkeys(names, False)
            return Trainer(accelerator="cpu", devices=1, **settings)
    finally:
        logger.setLevel(level)
