"""Messages typed at a terminal: lines, their editing, and what Ctrl-C and Ctrl-D mean."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from lit_llm.usage import raised_here

QUOTES = '"""'


def converse(hear: Callable[[str], bool], note: Callable[[str], None]) -> None:
    """Read messages until somebody leaves; nothing else that is typed ends it.

    Args:
        hear: Answers a message; False: it was the last one. What it refuses by a ValueError is told.
        note: Says something that is no answer.
    """
    read = line_reader()
    with once_each() as interruptible:
        while True:
            is_typing = True
            try:
                with interruptible():
                    text = message(read)
                    is_typing = False
                    if not hear(text):
                        return
            except EOFError:
                note("")
                return
            except KeyboardInterrupt:
                note("\n(Ctrl-D or /quit leaves)" if is_typing else "(stopped)")
            except ValueError as error:
                if not raised_here(error):
                    raise
                note(str(error))


@contextmanager
def once_each() -> Iterator[Callable[[], Any]]:
    """Lets Ctrl-C interrupt what is marked for it, once each time: further ones, of an impatient user, change nothing.

    Yields:
        What makes a context that may be interrupted.
    """
    may_interrupt = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal may_interrupt
        if may_interrupt:
            may_interrupt = False
            raise KeyboardInterrupt

    @contextmanager
    def interruptible() -> Iterator[None]:
        nonlocal may_interrupt
        may_interrupt = True
        try:
            yield
        finally:
            may_interrupt = False

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interruptible
    finally:
        signal.signal(signal.SIGINT, before)


def line_reader() -> Callable[[str], str]:
    """Reads a line of a terminal after a prompt; with editing and a history in memory, where stdout is one as well.

    What is pasted comes as one line with line breaks in it, where readline knows of that (GNU's does since version 7;
    Python turns it off, since its own prompt does not understand such lines).
    """
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not sys.stdout.isatty():
        return line_without_editing
    with suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
    return input


def line_without_editing(prompt: str) -> str:
    """A line of stdin; the prompt does not go to stdout, which is a file."""
    print(prompt, end="", file=sys.stderr, flush=True)
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line.rstrip("\r\n")


def message(read: Callable[[str], str]) -> str:
    """One message: a line, several that end with backslashes, or what stands between two marks of three quotes.

    Args:
        read: Reads a line after a prompt.

    Raises:
        EOFError: If the lines end.
    """
    line = read("> ")
    if line.lstrip().startswith(QUOTES):
        return "\n".join(_quoted(line.lstrip().removeprefix(QUOTES), read))
    lines = []
    while line.endswith("\\"):
        lines.append(line.removesuffix("\\"))
        line = read(". ")
    return "\n".join([*lines, line])


def _quoted(line: str, read: Callable[[str], str]) -> Iterator[str]:
    """Lines up to the one that ends with three quotes; a mark that stands alone is no line."""
    if not line.strip():
        line = read(". ")
    while not line.rstrip().endswith(QUOTES):
        yield line
        line = read(". ")
    if last := line.rstrip().removesuffix(QUOTES):
        yield last
