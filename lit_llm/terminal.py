"""What a terminal may be shown, and lines from stdin. Imports nothing heavy: every command may say something."""

import os
import sys
from collections.abc import Iterable, Iterator

# Line breaks and tabs are text. A carriage return is not: what follows it could cover what stands before.
CONTROL = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
# C1: the same commands in one character. The others let text be read in another order than it is written in
# (https://trojansource.codes).
DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
VISIBLE = CONTROL | {code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *DIRECTIONS)}


def visible(text: str) -> str:
    """A text in which nothing commands a terminal: each control character is replaced by one, or a few, that show it.

    Each character is treated by itself, so a text may come in any pieces.
    """
    return text.translate(VISIBLE)


def shown(text: str) -> str:
    """What is written to stdout of somebody's text: as it is, or, on a terminal, `visible`."""
    return visible(text) if sys.stdout.isatty() else text


def typed(text: str) -> str:
    """A text from the command line, in UTF-8, whose bytes Python leaves apart where the locale knows only ASCII."""
    try:
        return os.fsencode(text).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it came from elsewhere, and was whole
        return text


def lines_of_stdin() -> Iterator[str]:
    """Texts from stdin, one a line.

    Raises:
        ValueError: If what comes is no UTF-8.
    """
    lines: Iterable[str] = sys.stdin
    try:
        for line in lines:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"what came on stdin is no text in UTF-8 ({error.reason} at byte {error.start})") from error
