"""What `bench` and `plan` share: the parser of `fit` with options of their own, and tables."""

from typing import Any, ClassVar

from lit_llm.cli import CLI


class CostsCLI(CLI):
    """The command line of `fit`, of which another command makes something else.

    Args:
        args: `fit` and its options, and those of the other command.
    """

    name: ClassVar[str]
    description: ClassVar[str]

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Call both parsers by the words that the user types."""
        super().setup_parser(*args, **kwargs)
        for parser in (self.parser, self._parser("fit")):
            parser.prog, parser.description = f"lit-llm {self.name}", self.description

    def before_instantiate_classes(self) -> None:
        """Refuse what `fit` refuses, and a checkpoint."""
        if self.options.get("ckpt_path") is not None:
            raise ValueError(
                f"{self.name} has no use for --ckpt_path {self.options.ckpt_path}: a step costs the same wherever a "
                "run stands; leave it out"
            )
        super().before_instantiate_classes()

    @property
    def options(self) -> Any:
        """What was parsed: the options of `fit`, and those of this command beside them."""
        return self.config["fit"]


def table(rows: dict[str, str]) -> str:
    """Lines of a name and its value, aligned."""
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:{width}}{value}".rstrip() for name, value in rows.items())


def count(number: float) -> str:
    """A number of things in a word: 1,072 · 10.9M · 8.03B."""
    for unit, size in {"T": 1e12, "B": 1e9, "M": 1e6}.items():
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 100 * size else f"{number / size:.0f}{unit}"
    return f"{number:,.0f}"
