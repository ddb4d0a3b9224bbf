"""Conversations as text: chat templates, and which parts of their text are the words of whom."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lit_llm.data.frames import MAX_SHAPES, Frame, Shape, in_place, shape_of
from lit_llm.data.sandbox import ChatEnvironment, compiled, line_of
from lit_llm.data.spans import TRAIN, Inputs, Message, Segment, Span, marked_spans, missing_fields
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.traced import Traced
from lit_llm.usage import home_path

__all__ = [
    "SOURCE",
    "TEMPLATES",
    "TRAIN",
    "ChatTemplate",
    "Message",
    "Rendered",
    "Span",
    "ends_of",
    "names",
    "source_of",
]

TEMPLATES = Path(__file__).parent / "templates"
SOURCE = "source"  # the name of the template that comes along with a tokenizer
MARKER = r"<[^<>\s]+>"  # how templates write special tokens
ROLE = re.compile(r"[a-z_]{1,32}")  # a role is written into the text of a template, so it is a word
Variables = Mapping[str, Any]  # what a template is given beside messages


class Rendered(NamedTuple):
    """A conversation as text.

    Args:
        spans: The text, by whose words they are.
        left_out: The fields with words that the template does not write, and how often.
    """

    spans: list[Span]
    left_out: Counter[str]


class ChatTemplate:
    """A Jinja template that turns a conversation into text, as published with models for chats.

    What the assistant has to write carries loss: what {% generation %} marks in the template; without such marks, each
    of its messages, from where the template asks for a message (`add_generation_prompt`) to the token that ends it.

    Args:
        source: The template.
        name: What messages call it.
        bos_token: Spelling of the token that begins a text. None: there is none.
        eos_token: Spelling of the token that ends a text. None: there is none.

    Raises:
        ValueError: If the source is no Jinja.
    """

    def __init__(
        self, source: str, name: str = SOURCE, bos_token: str | None = None, eos_token: str | None = None
    ) -> None:
        self.source, self.name = source, name
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.tokens = {key: token for key, token in tokens.items() if token is not None}
        self._environment = ChatEnvironment()
        try:
            self._template = compiled(source, self._environment)
        except Exception as error:
            raise ValueError(self._told(error)) from error
        self._has_marks = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None
        self._frames: dict[tuple[Shape, bool], Frame | None] = {}
        self._prompts: dict[Any, str | None] = {}
        self._frame: tuple[str, str] | None = None

    @classmethod
    def of(cls, name: str, tokenizer: Tokenizer) -> "ChatTemplate":
        """The template of a name, for the begin and the end of texts of a tokenizer.

        Args:
            name: One of ours, the path of a Jinja file, or `source`: the one that came along with the tokenizer.
            tokenizer: Says how a text begins and ends.

        Raises:
            ValueError: If there is none of that name, or it is no Jinja.
        """
        return cls(source_of(name, tokenizer), name, *ends_of(tokenizer))

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, variables: Variables | None = None
    ) -> str:
        """The text of a conversation.

        Args:
            messages: What was said, in order.
            add_generation_prompt: Whether what makes the assistant answer follows.
            variables: What else the template is given: `tools`, `documents`, or settings of its own.

        Raises:
            ValueError: If the template refuses them, fails, or takes too long.
        """
        return self._rendered(Inputs(messages, variables or {}, traced=False), add_generation_prompt)

    def spans(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, variables: Variables | None = None
    ) -> list[Span]:
        """The text of a conversation in stretches, by whose words they are: as in `rendered`."""
        return self.rendered(messages, add_generation_prompt, variables).spans

    def rendered(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, variables: Variables | None = None
    ) -> Rendered:
        """The text of a conversation in stretches, by whose words they are; and what was said and is not there.

        All text that is given to the template carries its origin with it, through whatever the template does; for most
        conversations that need not be done again, as `lit_llm.data.frames` says.

        Raises:
            ValueError: As in `render`, or if a role is no word.
        """
        variables = variables or {}
        for message in messages:
            if not (isinstance(role := message.get("role"), str) and ROLE.fullmatch(role)):
                raise ValueError(f"the role {str(role)[:40]!r} is no word of small letters")
        shape = None if variables else shape_of(messages)
        frame = None if shape is None else self._frame_of(shape, add_generation_prompt)
        known = frame and frame.filled(messages, self.render(messages, add_generation_prompt))
        return Rendered(*known) if known else self._traced(messages, add_generation_prompt, variables)

    def _frame_of(self, shape: Shape, add_generation_prompt: bool) -> Frame | None:
        """What the template writes for all conversations of a shape; None if that goes by what they say."""
        key = shape, add_generation_prompt
        if key not in self._frames and len(self._frames) < MAX_SHAPES:
            messages, looks = in_place(shape), Traced.looks
            try:
                self._frames[key] = Frame(messages, self._traced(messages, add_generation_prompt, {}).spans)
            except (ValueError, LookupError):  # it is made of other words, or refuses these
                self._frames[key] = None
            if Traced.looks != looks:
                self._frames[key] = None
                self._prompts.clear()
        return self._frames.get(key)

    def _traced(self, messages: Sequence[Message], add_generation_prompt: bool, variables: Variables) -> Rendered:
        inputs = Inputs(messages, variables, traced=True)
        text = self._rendered(inputs, add_generation_prompt)
        segments, left_out = inputs.segments(text), missing_fields(inputs, messages, text)
        if self._has_marks:
            untrained = {n for n, message in enumerate(messages) if not message.get(TRAIN, True)}
            return Rendered(list(marked_spans(segments, untrained)), left_out)
        return Rendered(list(self._with_loss(segments, messages, variables)), left_out)

    @property
    def ends_answers(self) -> bool:
        """Whether a control token ends each answer, so that a model learns to stop."""
        return bool(self.end)

    @property
    def lead(self) -> str:
        """What the assistant writes before each answer, where the prompt does not hold it; often nothing."""
        return self._lead_and_end()[0]

    @property
    def end(self) -> str:
        """Spelling of the control token that ends each answer; empty if none does."""
        return self._lead_and_end()[1].strip()

    def _told(self, error: Exception) -> str:
        line = line_of(error)
        where = "" if line is None else f"line {line}: "
        reason = str(error) if isinstance(error, ValueError) or str(error) else type(error).__name__
        return f"the chat template '{self.name}' cannot be rendered: {where}{reason}"

    def _rendered(self, inputs: Inputs, add_generation_prompt: bool) -> str:
        self._environment.start(inputs.traced)
        given = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **self.tokens}
        try:
            return self._template.render({**given, **inputs.variables, "messages": inputs.messages})
        except Exception as error:  # a template's mistakes are of any kind
            raise ValueError(self._told(error)) from error

    def _with_loss(self, segments: list[Segment], messages: Sequence[Message], variables: Variables) -> Iterator[Span]:
        """Let the answers carry loss, with what the model has to write before them, and the token that ends them.

        What the template writes between two parts of an answer, as around a tool call, belongs to the answer.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for place, segment in enumerate(segments):
            if segment.answer is not None and messages[segment.answer].get(TRAIN, True):
                first.setdefault(segment.answer, place)
                last[segment.answer] = place
        begins, ends = {place: answer for answer, place in first.items()}, set(last.values())
        for place, (text, given, answer, _) in enumerate(segments):
            if given is not None:
                yield Span(text, True, answer in first)
                continue
            before = segments[place - 1].answer if place else None
            after = segments[place + 1].answer if place + 1 < len(segments) else None
            if before in first and before == after:
                yield Span(text, False, True)
                continue
            end = self._end_in(text) if place - 1 in ends else 0
            lead = len(text)
            if (answer := begins.get(place + 1)) is not None:
                lead = max(end, self._lead_in(text, messages[:answer], variables))
            parts = ((text[:end], True), (text[end:lead], False), (text[lead:], True))
            yield from (Span(part, False, carries_loss) for part, carries_loss in parts if part)

    def _lead_in(self, text: str, asked: Sequence[Message], variables: Variables) -> int:
        """Where the prompt ends in a text of the template before an answer: the model has to write what follows."""
        settings = tuple((key, v if isinstance(v, bool | int | float) else None) for key, v in variables.items())
        key = text, asked[-1]["role"] if asked else None, settings
        if key not in self._prompts:
            inputs = Inputs(asked, variables, traced=True)
            try:
                segments = inputs.segments(self._rendered(inputs, add_generation_prompt=True))
                self._prompts[key] = segments[-1].text if segments and segments[-1].given is None else ""
            except ValueError:  # one that asks for more than that
                self._prompts[key] = None
        prompt = self._prompts[key]
        if prompt is None:
            return len(text)
        same = min(len(text), len(prompt))
        return same if text[:same] == prompt[:same] else len(text)

    def _end_in(self, text: str) -> int:
        """Where the token that ends an answer ends in a text of the template after it; 0: there is none."""
        if not self.end:
            return 0
        if (place := text.find(self.end)) >= 0:
            return place + len(self.end)
        other = re.search(MARKER, text)  # as a tool call may have
        return other.end() if other else 0

    def _lead_and_end(self) -> tuple[str, str]:
        """What stands between the prompt and an answer, and what ends one; from a conversation of two messages."""
        if self._frame is None:
            question = {"role": "user", "content": "?"}
            segments, variables = list[Segment](), dict[str, Any]()
            for variables in ({}, {"tools": []}):  # some demand tools
                inputs = Inputs([question, {"role": "assistant", "content": "!"}], variables, traced=True)
                with suppress(ValueError):  # one that asks for more than that
                    segments = inputs.segments(self._rendered(inputs, False))
                    break
            place = next((place for place, segment in enumerate(segments) if segment.answer == 1), -1)
            before, after = (segments[n].text if 0 <= n < len(segments) else "" for n in (place - 1, place + 1))
            eos = [re.escape(self.tokens["eos_token"])] if self.tokens.get("eos_token") else []
            end = re.match(rf"\s*(?:{'|'.join([*eos, MARKER])})", after) if place >= 0 else None
            lead = before[self._lead_in(before, [question], variables) :] if place > 0 else ""
            self._frame = lead, end[0] if end else ""
        return self._frame


def source_of(name: str, tokenizer: Tokenizer) -> str:
    """The Jinja source of a template by its name.

    Raises:
        ValueError: If there is none of that name, or its file cannot be read.
    """
    if name == SOURCE:
        if tokenizer.chat_template is None:
            raise ValueError(
                "the template 'source' is the one that comes along with the tokenizer, and this one brings none; "
                f"name another: {', '.join(names())}, or the path of a .jinja file"
            )
        return tokenizer.chat_template
    path = TEMPLATES / f"{name}.jinja" if name in names() else home_path(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(
            f"there is no chat template '{name}' ({reason}); name one of {', '.join([*names(), SOURCE])}, or the path "
            "of a .jinja file"
        ) from error


def names() -> list[str]:
    """Names of the templates that come along with this package."""
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def ends_of(tokenizer: Tokenizer) -> tuple[str | None, str | None]:
    """Spellings of the tokens that begin and end a text, as `lit-llm export` writes them: without a begin, the end."""
    spelt = {i: name for name, i in tokenizer.special_ids.items()}
    begin, end = tokenizer.begin_of_text, tokenizer.end_of_text
    first = end if begin is None else begin
    return None if first is None else spelt.get(first), None if end is None else spelt.get(end)
