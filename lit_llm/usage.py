"""Wrong usage and wrong input, told in one sentence. Imports nothing heavy: every command starts here."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from lit_llm.sentences import sentence
from lit_llm.terminal import visible

MAX_SEED = 2**32 - 1  # numpy's


class RunError(RuntimeError):
    """A run that failed for a reason that one sentence tells; exit code 1."""


class OneSentence:
    """Mixin for a jsonargparse parser: an error is one sentence on stderr, and exit code 2."""

    prog: str
    exit_on_error: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # `--trainer.max` is a mistake, not a shorthand; jsonargparse makes parsers for the parts by this class as well.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tell what was wrong and stop."""
        if not self.exit_on_error:  # a try inside another parser, which may have alternatives
            raise jsonargparse.ArgumentError(None, message) from ex
        fail(self.prog, sentence(message, _options(self)), ex)


class Parser(OneSentence, jsonargparse.ArgumentParser):
    """The parser of the commands that train nothing."""


def fail(prog: str, message: str, error: BaseException | None = None, code: int = 2) -> NoReturn:
    """Print one line and exit; with LIT_LLM_DEBUG=1, say where it was found."""
    if error is not None and os.environ.get("LIT_LLM_DEBUG"):
        traceback.print_exception(error)
    print(f"{prog}: error: {visible(' '.join(message.splitlines()))}", file=sys.stderr)
    sys.exit(code)


def guarded(prog: str, command: Callable[[], int]) -> int:
    """Run a command; what this package or Lightning refuses on purpose becomes one line.

    An error counts as refused on purpose if it is a ValueError raised by a line of one of them. Anything else is a
    failure of the run, or a bug, and keeps its traceback (exit code 1).

    Args:
        prog: What to call the command in messages.
        command: Runs it and returns its exit code.

    Returns:
        The exit code.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError as error:  # the reader of our output has left, as in `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stopped = error.__context__
        return int(stopped.code or 0) if isinstance(stopped, SystemExit) else 0
    except SystemExit as stop:
        # Lightning turns an interrupt into exit code 1.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return 130
        raise
    except RunError as error:
        fail(prog, str(error), error, code=1)
    except ValueError as error:
        refusal = reason(error)
        if not raised_here(refusal):
            raise
        fail(prog, str(refusal), error)


@contextmanager
def at(place: str) -> Iterator[None]:
    """Name the place of one of many texts in what is refused of it.

    Args:
        place: What a user finds it by, as `line 3`. Empty: it is the only one.
    """
    try:
        yield
    except ValueError as error:
        if not place or not raised_here(error):
            raise
        raise ValueError(f"{place}: {error}") from error


def home_path(name: str | Path) -> Path:
    """A path in which `~` is a home; that of nobody stays as it is, and nothing is there (pathlib would fail)."""
    return Path(os.path.expanduser(name))  # noqa: PTH111


def reason(error: BaseException) -> BaseException:
    """What is behind an error that others have wrapped: the refusal of a line of ours, or the first cause of all."""
    chain = [error]
    while isinstance(chain[-1].__cause__, ValueError):
        chain.append(chain[-1].__cause__)
    return next((link for link in chain if raised_here(link)), chain[-1])


def raised_here(error: BaseException) -> bool:
    """Whether an error was raised by a line of ours, or of Lightning: on purpose, then."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith(("lit_llm.", "lightning."))


def _options(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):  # the parsers of subcommands
            for inner in action.choices.values():
                yield from _options(inner)
