"""The texts that are given to a chat template, and whose words the stretches of its output are."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lit_llm.data.traced import Part, Traced, lifted

Message = dict[str, Any]  # role, content, and whatever else a template may make use of
TRAIN = "train"  # key of an assistant message, for us alone: False keeps it out of the loss
REASONING = ("reasoning_content", "thinking", "reasoning")  # names of one field; templates know one or another
NO_WORDS = ("id", "tool_call_id")  # fields that nobody misses
TAG = re.compile(r"<[^<>\s]*>")


class Span(NamedTuple):
    """A stretch of a rendered conversation.

    Args:
        text: What it says.
        is_content: Whether it was given to the template; in such text nothing is a special token.
        carries_loss: Whether the assistant has to write it.
    """

    text: str
    is_content: bool
    carries_loss: bool


class Given(NamedTuple):
    """A text that is given to a template.

    Args:
        message: Number of its message. None: it belongs to the whole conversation, as a tool's description does.
        field: Name of the field of the message, or of the variable.
        text: What it says.
    """

    message: int | None
    field: str
    text: str


class Segment(NamedTuple):
    """A stretch of a rendered conversation from one origin.

    Args:
        text: What it says.
        given: Number of the given text. None: the template wrote it.
        answer: Number of the assistant's message that it is a part of.
        generated: Whether it stands in a {% generation %} block.
    """

    text: str
    given: int | None
    answer: int | None
    generated: bool


class Inputs:
    """What a template reads: messages and variables, as plain data.

    Args:
        messages: The messages.
        variables: What else is given to the template, as `tools`.
        traced: Whether the texts are to be found in its output again.
    """

    def __init__(self, messages: Sequence[Message], variables: Mapping[str, Any], traced: bool) -> None:
        self.traced = traced
        self.given: list[Given] = []
        self.messages = [self._message(number, message) for number, message in enumerate(messages)]
        self.variables = {key: self._plain(value, None, key) for key, value in variables.items()}
        self._answers = {n for n, message in enumerate(messages) if message["role"] == "assistant"}

    def _message(self, number: int, message: Message) -> Message:
        shown = {
            key: value if key == "role" else self._plain(value, number, key)
            for key, value in message.items()
            if key != TRAIN
        }
        for key in REASONING:  # as transformers does
            if shown.get(key) is not None:
                return {"thinking": shown[key], **shown, "reasoning_content": shown[key]}
        return shown

    def _plain(self, value: Any, message: int | None, field: str) -> Any:
        if isinstance(value, str):
            if not self.traced:
                return value
            self.given.append(Given(message, field, value))
            return Traced(value, (Part(len(value), len(self.given) - 1),) if value else ())
        if isinstance(value, Mapping):
            pairs = value.items()
            return {self._plain(key, message, field): self._plain(item, message, field) for key, item in pairs}
        if isinstance(value, list | tuple):
            return [self._plain(item, message, field) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return f"<{type(value).__name__}>"  # as transformers does

    def segments(self, text: str) -> list[Segment]:
        """The stretches of a rendered text; given words that come again are nobody's answer."""
        found: list[Segment] = []
        place, last, ends = 0, Part(0, -2), defaultdict[int, int](int)
        for part in lifted(text)._parts:
            piece = str.__getitem__(text, slice(place, place + part.length))
            place += part.length
            answer = None
            if part.given is not None and part.given >= 0:
                message, field, _ = self.given[part.given]
                if message in self._answers and field != "name" and part.start >= ends[part.given]:
                    answer = message
                ends[part.given] = max(ends[part.given], part.end)
            follows = part.given is None or part.start == last.end
            segment = Segment(piece, part.given, answer, part.generated)
            if found and follows and found[-1][1:] == segment[1:]:
                found[-1] = segment._replace(text=found[-1].text + piece)
            else:
                found.append(segment)
            last = part
        return found

    def left_out(self, text: str) -> Iterator[tuple[int | None, str]]:
        """The fields whose words a rendered text lacks: message and name.

        Of a field that is a text, words that are missing count, but for tags; of lists and the like, and of names, one
        that is missing as a whole.
        """
        shown = defaultdict[int, list[tuple[int, int]]](list)
        for part in lifted(text)._parts:
            if part.given is not None:
                shown[part.given].append((part.start, part.end))
        fields = defaultdict[tuple[int | None, str], list[int]](list)
        for number, (message, field, words) in enumerate(self.given):
            if field not in NO_WORDS and words.strip():
                fields[message, field].append(number)
        for key, numbers in fields.items():
            if len(numbers) > 1 or key[0] is None:
                missing = not any(number in shown for number in numbers)
            else:
                missing = says_more(self.given[numbers[0]].text, shown.get(numbers[0], []))
            if missing:
                yield key


def says_more(text: str, shown: list[tuple[int, int]]) -> bool:
    """Whether something but tags and white space lies outside of what is shown."""
    place, rest = 0, []
    for start, end in sorted(shown):
        rest.append(text[place : max(start, place)])
        place = max(place, end)
    left = "".join([*rest, text[place:]])
    return bool(left.strip() and TAG.sub("", left).strip())


def missing_fields(inputs: Inputs, messages: Sequence[Message], text: str) -> Counter[str]:
    """What a rendered text lacks of what was given, and how often."""
    found: Counter[str] = Counter()
    for number, field in inputs.left_out(text):
        if number is None:
            found[field] += 1
        else:
            found[named(field, messages[number]["role"])] += 1
    return found


def named(field: str, role: str) -> str:
    """What a field of a message is called in a report."""
    return f"{field} of {'an' if role[0] in 'aeiou' else 'a'} {role} message"


def marked_spans(segments: Iterable[Segment], untrained: set[int]) -> Iterator[Span]:
    """Spans of a template with {% generation %}: what it marks carries loss, but for answers that are not to train."""
    segments = list(segments)
    owner: int | None = None  # of the words before
    for place, (text, given, answer, is_generated) in enumerate(segments):
        if place and not (is_generated and segments[place - 1].generated):
            owner = None
        following = segments[place + 1] if place + 1 < len(segments) else None
        if given is not None:
            owner = -1 if answer is None else answer
        elif owner is None and following is not None and following.generated:
            owner = following.answer
        yield Span(text, given is not None, is_generated and owner not in untrained)
