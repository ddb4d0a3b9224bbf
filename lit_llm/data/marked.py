"""Documents that stand in one text with a mark between them, and marks that are usual for that."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO

Open = Callable[[], AbstractContextManager[IO[str]]]

# What corpora and chat formats put after a document, as it is spelt.
USUAL = (
    *("<|endoftext|>", "<|end_of_text|>", "<|endofdocument|>", "<|eot_id|>", "<|im_end|>", "<|eos|>", "<|EOS|>"),
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>", "<eos>", "<EOS>", "[EOS]"),
)


def between(text: str, mark: str, found: Counter[str]) -> list[str]:
    """The documents of a text; a line break beside a mark belongs to the mark, and white space alone is no document.

    Args:
        text: The text.
        mark: What stands between its documents.
        found: Counts the marks.
    """
    parts = text.split(mark)
    last = len(parts) - 1
    found[mark] += last
    parts = [_trimmed(part, number > 0, number < last) for number, part in enumerate(parts)]
    return [part for part in parts if part and not part.isspace()]


def _trimmed(text: str, after: bool, before: bool) -> str:
    """A text without the line break after the mark that stands before it, and before the one that follows."""
    if after:
        text = text.removeprefix("\r").removeprefix("\n")
    return text.removesuffix("\n").removesuffix("\r") if before else text


class Part:
    """A document in a file of several, as a file of its own to be read from beginning to end.

    Args:
        file: The file, at a place before the document.
        skip: Characters from there to where the document begins.
        mark: What ends it, unless the file ends first.
        is_first: Whether no mark stands before it.
    """

    def __init__(self, file: IO[str], skip: int, mark: str, is_first: bool) -> None:
        self.file, self.mark, self.is_done = file, mark, False
        while skip and (passed := len(file.read(skip))):
            skip -= passed
        self.rest = file.read(len(mark) + 2)
        if not is_first:
            self.rest = _trimmed(self.rest, True, False)

    def read(self, size: int) -> str:
        """The next characters; none where the document ends."""
        while not self.is_done:
            block = self.file.read(size)
            self.rest += block
            text, mark, _ = self.rest.partition(self.mark)
            self.is_done = bool(mark) or not block
            if self.is_done:
                return _trimmed(text, False, bool(mark))
            keep = len(self.rest) - len(self.mark) - 1  # the beginning of a mark, and a line break before it
            if keep > 0:
                text, self.rest = self.rest[:keep], self.rest[keep:]
                return text
        return ""


def parts_of_file(open_text: Open, mark: str, size: int, found: Counter[str]) -> Iterator[str | tuple[int, int, bool]]:
    """The documents of a file, in memory that knows neither its size nor theirs.

    Args:
        open_text: Opens the file.
        mark: What stands between documents.
        size: Characters that are read at once; a document that is longer is not held.
        found: Counts the marks.

    Yields:
        A document's text; or of a long one where it begins, for `long_part`: a place of the file, characters after it,
        and whether it is the first.
    """
    with open_text() as file:
        start, is_first, held = (file.tell(), 0), True, ""  # of the document at hand; `held` is what is known of it
        is_long = False
        while True:
            place, before = file.tell(), len(held)
            block = file.read(size)
            *whole, held = (held + block).split(mark)
            found[mark] += len(whole)
            at = -before  # where the next part begins, in characters after the place
            for part in whole:
                if is_long:
                    yield (*start, is_first)
                elif (text := _trimmed(part, not is_first, True)) and not text.isspace():
                    yield text
                at += len(part) + len(mark)
                start, is_long, is_first = (place, at), False, False
            if not block:
                break
            if len(held) > size + len(mark):  # more than the beginning of a mark
                is_long, held = True, held[-len(mark) :]
        if is_long:
            yield (*start, is_first)
        elif (text := _trimmed(held, not is_first, False)) and not text.isspace():
            yield text
