"""A conversation with a model: written by its chat template, and kept within its positions."""

import json
import os
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from lit_llm.data.chat_encoding import ChatEncoder, answer_end
from lit_llm.data.prompts import SOURCE, ChatTemplate, Message, names
from lit_llm.data.tokenizer import well_formed
from lit_llm.inference.text import Asked, TextModel
from lit_llm.usage import home_path

ROOM = 4  # an answer is sure of one in so many positions, or of all that it may take


class Assistant:
    """A model that answers by a chat template.

    What somebody says is encoded as ordinary text, so nobody can forge a turn.

    Args:
        model: The model.
        template: Turns conversations into text.
    """

    def __init__(self, model: TextModel, template: ChatTemplate) -> None:
        self.model, self.template = model, template
        self._encoder = ChatEncoder(model.tokenizer, template)

    @classmethod
    def of(cls, model: TextModel, name: str = SOURCE) -> Self:
        """A model with the template of a name.

        Args:
            model: The model.
            name: As for `ChatTemplate.of`; `source` is the one that came along with the model.

        Raises:
            ValueError: If there is none, it is no Jinja, or it cannot write a plain question.
        """
        if name == SOURCE and model.tokenizer.chat_template is None:
            raise ValueError(
                "this model comes without a chat template; name the one that it was trained with: --template "
                f"{', '.join(names())}, or the path of a .jinja file"
            )
        assistant = cls(model, ChatTemplate.of(name, model.tokenizer))
        assistant.encode([{"role": "user", "content": "?"}])
        return assistant

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation up to where the assistant has to answer.

        Raises:
            ValueError: As in `ChatTemplate.spans`, if the tokenizer refuses a text, or if there is nothing to read.
        """
        ids = self._encoder.encode(messages, add_generation_prompt=True).ids.tolist()
        if not ids:
            raise ValueError(f"the chat template '{self.template.name}' makes nothing of the messages")
        return ids

    def asked(self, asked: Asked) -> Asked:
        """How to continue, up to the end of an answer."""
        end = answer_end(self.model.tokenizer, self.template)
        if isinstance(end, int):
            return replace(asked, ends=asked.ends | {end})
        return asked if end is None else replace(asked, stop=(*asked.stop, end))


class Session:
    """A conversation as it grows.

    Args:
        assistant: Who answers.
        asked: How. `max_new_tokens` are those of an answer; where the positions end before, fewer.
        seed: Of the first answer; those after it have the next ones. None: others each time.
        system: What the assistant is told first; empty: nothing.

    Raises:
        ValueError: If the template has no place for a system message.
    """

    def __init__(self, assistant: Assistant, asked: Asked, seed: int | None = None, system: str = "") -> None:
        self.assistant, self.asked, self.seed = assistant, assistant.asked(asked), seed
        self.block_size = assistant.model.backbone.block_size
        self.max_new_tokens = asked.max_new_tokens or self.block_size
        self.limit = 0  # tokens that the answer at hand may have
        self.messages: list[Message] = []
        self._answers = 0
        self._ids: list[int] = []
        self._saved: set[Path] = set()
        self.set_system(system)

    @property
    def system(self) -> str:
        """What the assistant is told first."""
        first = self.messages[:1]
        return first[0]["content"] if first and first[0]["role"] == "system" else ""

    def set_system(self, text: str) -> None:
        """Tell the assistant something else first; empty: nothing. What was said so far stays.

        Raises:
            ValueError: If the template has no place for it, or it leaves no room; then it stays as it was.
        """
        told: list[Message] = [{"role": "system", "content": well_formed(text)}] if text else []
        if told:
            self._fit([*told, {"role": "user", "content": "?"}], "the system message")
        self.messages = told + self._turns()

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self.messages = self.messages[: bool(self.system)]

    def ask(self, text: str) -> int:
        """Add a message, and forget the oldest turns if that is what it takes to leave room for an answer.

        Returns:
            How many messages were forgotten.

        Raises:
            ValueError: If it does not fit even alone, or cannot be written by the template or the tokenizer; then the
                conversation is as it was.
        """
        told, turns = self.messages[: bool(self.system)], self._turns()
        turns = turns[: len(turns) // 2 * 2]  # a question that was never answered
        question = {"role": "user", "content": well_formed(text)}
        dropped = 0
        while len(ids := self.assistant.encode([*told, *turns[dropped:], question])) + self.room > self.block_size:
            if dropped == len(turns):
                self._fit([*told, question], "the message")
            dropped += 2
        self._ids, self.messages = ids, [*told, *turns[dropped:], question]
        self.limit = min(self.max_new_tokens, self.block_size - len(ids))
        return dropped

    def answer(self) -> Generator[str, None, str]:
        """The answer to what was asked, piece by piece as it comes.

        Where it is broken off, what has come so far becomes the assistant's turn; if nothing has, the question is
        forgotten.

        Returns:
            Why it has ended: `stop`, or `length` after `limit` tokens.
        """
        seed = None if self.seed is None else self.seed + self._answers
        self._answers += 1
        pieces = self.assistant.model.stream(self._ids, replace(self.asked, max_new_tokens=self.limit), seed)
        said, ended = [], False
        try:
            while True:
                try:
                    said.append(next(pieces))
                except StopIteration as stop:
                    ended = True
                    return stop.value
                yield said[-1]
        finally:
            # The template writes the lead itself, where the message stands among others.
            text = "".join(said).removeprefix(self.assistant.template.lead)
            if ended or text:
                self.messages.append({"role": "assistant", "content": text})
            else:
                self.messages.pop()

    @property
    def room(self) -> int:
        """Tokens that an answer is sure of."""
        return min(self.max_new_tokens, max(self.block_size // ROOM, 1))

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the conversation as JSON, as a whole or not at all.

        Args:
            path: The file; one that is there already has to be of this session.
            settings: What stands beside the messages.

        Raises:
            ValueError: If there is such a file already, or it cannot be written.
        """
        content = json.dumps({"messages": self.messages, **settings}, ensure_ascii=False, indent=2)
        try:
            path = home_path(path).absolute()
            if os.path.lexists(path) and path not in self._saved:
                raise ValueError(f"'{path}' is there already and not of this session; name another file")
            with tempfile.TemporaryDirectory(prefix=f".{path.name}.part-", dir=path.parent) as work:
                part = Path(work, "part")
                part.write_text(content + "\n", encoding="utf-8")
                os.replace(part, path)
        except OSError as error:
            raise ValueError(f"cannot write '{path}': {error.strerror or error}") from error
        self._saved.add(path)

    def _turns(self) -> list[Message]:
        return self.messages[bool(self.system) :]

    def _fit(self, messages: list[Message], name: str) -> None:
        """Refuse what leaves no room for an answer."""
        length = len(self.assistant.encode(messages))
        if length + self.room > self.block_size:
            raise ValueError(
                f"{name} is too long: its {length} tokens, with those of the template, and {self.room} for an answer "
                f"do not fit the model's {self.block_size} positions (block_size); shorten it"
            )
