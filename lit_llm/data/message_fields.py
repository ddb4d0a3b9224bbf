"""The texts of messages, and where in a rendered conversation an answer of more than a text begins and ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

Message = dict[str, Any]  # role, content, and what a template may make use of beside them
Piece = tuple[str | int, bool]  # text of the template or the number of a field; whether it carries loss
LITERAL = ("role", "tool_call_id")  # written as they are, also where a text is left open: templates may check them


class Text(NamedTuple):
    """A text of a message.

    Args:
        message: Number of the message.
        key: Its field; of a tool call, `name` or `arguments`.
        value: What it says.
    """

    message: int
    key: str
    value: str


def texts_of(messages: Sequence[Message]) -> list[Text]:
    """The texts of messages in order, names and arguments of tool calls among them where these are texts.

    Raises:
        ValueError: If a field is something else.
    """
    found = []
    for number, message in enumerate(messages):
        for key, value in message.items():
            if isinstance(value, str):
                if key not in LITERAL:
                    found.append(Text(number, key, value))
            elif key == "tool_calls":
                for call in value:
                    inner = call["function"]
                    found += [Text(number, k, inner[k]) for k in ("name", "arguments") if isinstance(inner[k], str)]
            elif value is not None or key != "content" or "tool_calls" not in message:
                raise ValueError(f"the field '{key}' of a message is a {type(value).__name__}, no text")
    return found


def opened(messages: Sequence[Message], mark: Callable[[int], str]) -> list[Message]:
    """Messages in which marks stand for the texts, in the order of `texts_of`; an empty text stays."""
    numbers = iter(range(1 << 62))

    def left_open(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        number = next(numbers)
        return value and mark(number)

    found = []
    for message in messages:
        copy = {}
        for key, value in message.items():
            if key == "tool_calls":
                copy[key] = [
                    {
                        **c,
                        "function": {
                            k: left_open(v) if k in ("name", "arguments") else v for k, v in c["function"].items()
                        },
                    }
                    for c in value
                ]
            else:
                copy[key] = value if key in LITERAL else left_open(value)
        found.append(copy)
    return found


def shape(messages: Sequence[Message], given: Mapping[str, Any]) -> Any:
    """What decides how a template writes messages, whatever they say; None where there are too many such forms."""
    if given:
        return None
    parts = []
    for message in messages:
        if "tool_calls" in message or "tool_call_id" in message:
            return None
        parts.append(tuple((key, bool(value) and (key != "role" or value)) for key, value in message.items()))
    return tuple(parts)


def is_rich(message: Message) -> bool:
    """Whether an answer is more than its text: tool calls, or a reasoning before it."""
    return message["role"] == "assistant" and any(
        value for key, value in message.items() if key not in ("role", "content", "name")
    )


def answer_regions(
    messages: Sequence[Message],
    whole: str,
    end: str,
    render: Callable[[Sequence[Message], bool], str],
    place: Callable[[int], int],
) -> list[tuple[int, int]]:
    """Where the answers stand that are more than a text: from where the template asks for one to what ends it.

    Args:
        messages: The conversation, its texts left open.
        whole: How the template renders it.
        end: Spelling of the token that ends an answer; empty: there is none.
        render: Renders the first messages, with or without what makes the assistant answer.
        place: Where the mark of the last text of a message ends in `whole`, or -1.

    Raises:
        ValueError: If nobody can tell where one begins or ends.
    """
    found = []
    for number, message in enumerate(messages):
        if not is_rich(message):
            continue
        asked, said = render(messages[:number], True), render(messages[: number + 1], False).rstrip()
        before = render(messages[:number], False)
        start = len(asked) if whole.startswith(asked) else -1
        if start < 0 and asked.startswith(before) and place(number) >= 0 and (lead := asked[len(before) :]):
            start = whole.rfind(lead, 0, place(number))  # what comes before it is written in another way
            start += len(lead) if start >= 0 else 0
        stop = whole.find(end, max(start, place(number))) if end else -1
        following = next((place(n) for n in range(number + 1, len(messages)) if place(n) >= 0), len(whole))
        if 0 <= stop < following:
            stop += len(end)
        else:
            stop = len(said) if whole.startswith(said) else -1
        if not 0 <= start < stop:
            raise ValueError(
                "nobody can tell where the answer of a message with tool calls or reasoning begins or ends"
            )
        found.append((start, stop))
    return found


def with_regions(
    pieces: Sequence[Piece], regions: Sequence[tuple[int, int]], length: Callable[[int], int]
) -> list[Piece]:
    """Let all carry loss that stands in regions of the text of pieces.

    Args:
        pieces: The text of the template, and the numbers of what is left open.
        regions: Beginnings and ends, in order.
        length: Of the mark of a number.
    """
    borders = [border for region in regions for border in region]
    found: list[Piece] = []
    place, inside = 0, False
    for piece, carries_loss in pieces:
        size = len(piece) if isinstance(piece, str) else length(piece)
        while isinstance(piece, str) and borders and place <= borders[0] < place + len(piece):
            cut = borders.pop(0) - place
            found += [(piece[:cut], inside or carries_loss), ("", False)]
            piece, place, size, inside = piece[cut:], place + cut, size - cut, not inside
        if borders and borders[0] <= place:  # between two marks
            borders.pop(0)
            found.append(("", False))
            inside = not inside
        found.append((piece, inside or carries_loss))
        place += size
    return found


def without_loss(pieces: Sequence[Piece], texts: Sequence[Text], numbers: Sequence[int]) -> Iterator[Piece]:
    """Let some messages carry no loss.

    Args:
        pieces: The text of the template, and the numbers of texts.
        texts: The texts.
        numbers: Of the messages.
    """
    for carries_loss, group in groupby(pieces, key=lambda piece: piece[1]):
        run = list(group)
        whose = {texts[piece].message for piece, _ in run if isinstance(piece, int)}
        yield from ((piece, carries_loss and not (whose and whose <= set(numbers))) for piece, _ in run)
