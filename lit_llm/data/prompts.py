"""Conversations as text: chat templates, and which parts of their text are the words of whom."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_llm.data.message_fields import (
    Message as Message,
)
from lit_llm.data.message_fields import (
    Piece,
    Text,
    answer_regions,
    is_rich,
    opened,
    shape,
    texts_of,
    with_regions,
    without_loss,
)
from lit_llm.data.sandbox import BEGIN, END, ChatEnvironment, compiled, line_of
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.usage import home_path

TEMPLATES = Path(__file__).parent / "templates"
SOURCE = "source"  # the name of the template that comes along with a tokenizer
OPEN, CLOSE = "\ufdd1", "\ufdd2"  # around the number of what is left open; Unicode keeps them out of texts
MARKS = re.compile(f"{OPEN}(\\d+){CLOSE}|({BEGIN})|({END})")
MARKER = r"<[^<>\s]+>"  # how templates write control tokens
FORMS = (str, str.strip, str.lstrip, str.rstrip, lambda text: json.dumps(text, ensure_ascii=False)[1:-1])  # of a text
ROLE = re.compile(r"[a-z_]{1,32}")  # a role is written into the text of a template, so it is a word


class Span(NamedTuple):
    """A stretch of a rendered conversation.

    Args:
        text: What it says.
        is_content: Whether it is somebody's words, in which nothing is a control token.
        carries_loss: Whether the assistant has to write it.
    """

    text: str
    is_content: bool
    carries_loss: bool


NOTHING: Mapping[str, Any] = {}


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
        self._structures: dict[Any, list[Piece]] = {}
        self.takes: dict[bool, bool] = {}  # arguments of tool calls: as objects, as texts
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
        self, messages: Sequence[Message], add_generation_prompt: bool = False, variables: Mapping[str, Any] = NOTHING
    ) -> str:
        """The text of a conversation.

        Args:
            messages: What was said, in order.
            add_generation_prompt: Whether what makes the assistant answer follows.
            variables: What the template gets beside them: `tools`, or settings of its own.

        Raises:
            ValueError: If the template refuses them, fails, or takes too long.
        """
        return self._rendered(messages, add_generation_prompt, variables, marks=False)

    def spans(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        given: Mapping[str, Any] = NOTHING,
        untrained: Sequence[int] = (),
    ) -> list[Span]:
        """The text of a conversation in stretches, by whose words they are.

        The template is rendered once more with placeholders instead of all that was said. What is left then is the
        template's own, whatever the messages hold, and between it lie the messages.

        Args:
            messages: What was said, in order.
            add_generation_prompt: Whether what makes the assistant answer follows.
            given: What the template gets beside them.
            untrained: Numbers of messages that carry no loss.

        Raises:
            ValueError: As in `render`; if a message is more than texts and tool calls; or if the template changes what
                was said (it may only strip white space): then nobody could tell which tokens are the assistant's.
        """
        texts = texts_of(messages)
        for message in messages:
            if not ROLE.fullmatch(message["role"]):
                raise ValueError(f"the role {message['role'][:40]!r} is no word of small letters")
        text = self.render(messages, add_generation_prompt, given)
        pieces = self._pieces(messages, texts, add_generation_prompt, given)
        if untrained:
            pieces = list(without_loss(pieces, texts, untrained))
        return self._filled(text, pieces, [text.value for text in texts])

    def unwritten(self, messages: Sequence[Message], given: Mapping[str, Any] = NOTHING) -> list[str]:
        """What of a conversation the template leaves out: names of fields that say something.

        Raises:
            ValueError: As in `spans`.
        """
        texts = texts_of(messages)
        written = {piece for piece, _ in self._pieces(messages, texts, False, given) if isinstance(piece, int)}
        found = [
            f"'{text.key}' of role {messages[text.message]['role']}"
            for number, text in enumerate(texts)
            if number not in written and text.value.strip()
        ]
        return found + [f"'{key}'" for key, value in given.items() if value is not None and key not in self.source]

    def _pieces(
        self, messages: Sequence[Message], texts: list[Text], add_generation_prompt: bool, given: Mapping[str, Any]
    ) -> list[Piece]:
        if (form := shape(messages, given)) is None:
            return self._structure(messages, texts, add_generation_prompt, given)
        if (key := (form, add_generation_prompt)) not in self._structures:
            self._structures[key] = self._structure(messages, texts, add_generation_prompt, given)
        return self._structures[key]

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

    def _rendered(
        self, messages: Sequence[Message], add_generation_prompt: bool, given: Mapping[str, Any], marks: bool
    ) -> str:
        self._environment.start(marks)
        known = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **self.tokens}
        try:
            return self._template.render(messages=[dict(message) for message in messages], **known | dict(given))
        except Exception as error:  # a template's mistakes are of any kind
            raise ValueError(self._told(error)) from error

    def _structure(
        self, messages: Sequence[Message], texts: list[Text], add_generation_prompt: bool, given: Mapping[str, Any]
    ) -> list[Piece]:
        """The template's own text, and between it the numbers of the texts of messages."""
        open_ones = opened(messages, lambda number: f"{OPEN}{number}{CLOSE}")
        whole = self._rendered(open_ones, add_generation_prompt, given, marks=True)
        pieces = list(self._parsed(whole))
        if self._has_marks:
            return pieces
        is_answer = [
            text.key == "content"
            and messages[text.message]["role"] == "assistant"
            and not is_rich(messages[text.message])
            for text in texts
        ]
        pieces = list(self._with_loss(pieces, is_answer))
        if not any(map(is_rich, messages)):
            return pieces
        last = {text.message: f"{OPEN}{number}{CLOSE}" for number, text in enumerate(texts)}
        places = {number: whole.rfind(mark) + len(mark) for number, mark in last.items() if mark in whole}
        regions = answer_regions(
            open_ones,
            whole,
            self.end,
            lambda some, asks: self._rendered(some, asks, given, marks=False),
            lambda number: places.get(number, -1),
        )
        return with_regions(pieces, regions, lambda number: len(f"{OPEN}{number}{CLOSE}"))

    def _parsed(self, text: str) -> Iterator[Piece]:
        place, carries_loss = 0, False
        for mark in MARKS.finditer(text):
            yield text[place : mark.start()], carries_loss
            place = mark.end()
            if mark[1]:
                yield int(mark[1]), carries_loss
            else:
                carries_loss = mark[2] is not None
        yield text[place:], carries_loss

    def _with_loss(self, pieces: list[Piece], is_answer: list[bool]) -> Iterator[Piece]:
        """Let the answers carry loss, with what the model has to write before them, and the token that ends them."""
        lead, end = self._lead_and_end()
        whose = [isinstance(piece, int) and is_answer[piece] for piece, _ in pieces]
        for (piece, _), own, before, after in zip(
            pieces, whose, [False, *whose[:-1]], [*whose[1:], False], strict=True
        ):
            if isinstance(piece, int):
                yield piece, own
                continue
            first = len(end) if before and piece.startswith(end) else 0
            last = len(piece) - (len(lead) if after and piece[first:].endswith(lead) else 0)
            yield from ((piece[:first], True), (piece[first:last], False), (piece[last:], True))

    def _lead_and_end(self) -> tuple[str, str]:
        """What stands between the prompt and an answer, and what ends one; from a conversation of two messages."""
        if self._frame is None:
            question = {"role": "user", "content": "?"}
            answer = f"{OPEN}0{CLOSE}"
            try:
                prompt = self._rendered([question], True, NOTHING, marks=False)
                whole = self._rendered(
                    [question, {"role": "assistant", "content": answer}], False, NOTHING, marks=False
                )
            except ValueError:  # one that asks for more than that
                prompt = whole = ""
            before, _, after = whole.partition(answer)
            eos = [re.escape(self.tokens["eos_token"])] if self.tokens.get("eos_token") else []
            end = re.match(rf"\s*(?:{'|'.join([*eos, MARKER])})", after)
            self._frame = before[len(prompt) :] if before.startswith(prompt) else "", end[0] if end else ""
        return self._frame

    def _filled(self, text: str, pieces: list[Piece], values: list[str]) -> list[Span]:
        """The stretches of a rendered text; those of messages may have lost white space at their ends."""
        spans, place = [], 0
        for (piece, carries_loss), (following, _) in zip(pieces, [*pieces[1:], ("", False)], strict=True):
            if isinstance(piece, str):
                found = piece if text.startswith(piece, place) else None
            else:
                value, then = values[piece], following if isinstance(following, str) else ""
                forms = (form(value) for form in FORMS)
                found = next((form for form in forms if text.startswith(form + then, place)), None)
            if found is None:
                break
            place += len(found)
            if found:
                spans.append(Span(found, isinstance(piece, int), carries_loss))
        if found is None or place != len(text):
            raise ValueError(
                f"the chat template '{self.name}' changes what the messages say, or goes by it, so that nobody can "
                "tell which of its text is theirs; use one that writes them as they are"
            )
        return spans


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
