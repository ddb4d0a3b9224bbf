"""lit-llm data."""

import sys
from pathlib import Path
from typing import Any, Literal

from lightning import Trainer

from lit_llm import cli
from lit_llm.cli_command import OtherCommand, silent_trainer
from lit_llm.show.page import write_page
from lit_llm.show.terminal import show
from lit_llm.show.view import view
from lit_llm.usage import reason

HELP = """usage: lit-llm data show [options]

actions:
  show        what the model is really trained on: real batches of a config, which tokens carry loss, counts

`lit-llm data show --help` shows the options."""
LEAST = {"examples": 0, "batches": 1, "width": 20}


def run(args: list[str]) -> int:
    """Show the batches of a config."""
    if args[1:2] in (["--help"], ["-h"]):
        print(HELP)
        return 0
    if args[1:2] != ["show"]:
        raise ValueError(f"data has one action, 'show', not '{' '.join(args[1:2])}'")
    return cli.run(["fit", *args[2:]], ShowCLI)


class ShowCLI(OtherCommand):
    """Builds the data module that a config names, and nothing else, and shows what it serves.

    Args:
        args: `fit` and all options.
    """

    name = "data show"
    description = (
        "What the model is really trained on: rows of the batches that a training would read, token by token, with "
        "which of them carry loss, the shift by one, padding and packing, the template, what was cut; and counts of "
        "many batches. Builds no network and reads no weights. All options of fit are known."
    )
    no_checkpoint = "the data is the same wherever a run stands"

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Add what is asked for beside the options of fit."""
        super().add_arguments_to_parser(parser)
        add = parser.add_argument
        add("--split", type=Literal["train", "val", "test"], default="train", help="which batches")
        add("--examples", type=int, default=3, help="rows to show, from the first batch on")
        add("--batches", type=int, default=1000, help="batches to count, at most")
        add("--html", type=str | None, default=None, help="file to write the same into, as a page of its own")
        add("--width", type=int | None, default=None, help="columns; null is those of the terminal, or 100")

    def before_instantiate_classes(self) -> None:
        """Refuse what makes no sense before any text is read."""
        super().before_instantiate_classes()
        for name, least in LEAST.items():
            if self.options[name] is not None and self.options[name] < least:
                raise ValueError(f"--{name} {self.options[name]} cannot be: it is at least {least}")
        path = self.options.html
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"--html {path} lies in a folder that does not exist; make it first")
        if path is not None and Path(path).is_dir():
            raise ValueError(f"--html {path} is a folder; name a file in it")

    def instantiate_classes(self) -> None:
        """Build the data alone: a network would take its time and memory, and change nothing."""
        settings = self.options.clone()
        for group in ("model", "trainer"):
            del settings[group]
        try:
            self.datamodule = self._parser("fit").instantiate(settings).data
        except ValueError as error:
            raise ValueError(str(reason(error))) from error
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Not that of the config: nothing is trained."""
        return silent_trainer()

    def after_instantiate_classes(self) -> None:
        """Nothing: there is no run to refuse."""

    def _run_subcommand(self, subcommand: str) -> None:
        options, data = self.options, self.datamodule
        data.has_told = True  # what it has to tell is shown with the rest
        data.prepare_data()
        data.setup("test" if options.split == "test" else "fit")
        made = view(data, options.split, options.examples, options.batches)
        show(made, options.width)
        if options.html is not None:
            write_page(made, Path(options.html))
            print(f"wrote {options.html}", file=sys.stderr)
