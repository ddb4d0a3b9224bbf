"""lit-llm chat."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_llm.inference.chat_terminal import converse
from lit_llm.inference.options import (
    SAMPLING,
    SOURCE,
    TEMPLATE,
    add_sampling,
    add_storage,
    check,
    open_model,
    sampling_of,
)
from lit_llm.terminal import lines_of_stdin, shown, typed, visible
from lit_llm.usage import Parser, at

if TYPE_CHECKING:
    from lit_llm.inference.chat import Session

COMMANDS = {
    "/reset": "forget what was said; the system message stays",
    "/system TEXT": "tell the assistant something else first; without TEXT: nothing",
    "/save FILE": "write the conversation as JSON",
    "/help": "show this",
    "/quit": "leave, as Ctrl-D does",
}
HELP = """{commands}
A line that ends with a backslash goes on in the next one; so does all between two lines of \"\"\", and what is pasted.
A message that begins with a slash is written with two. Ctrl-C stops an answer."""


def run(args: list[str]) -> int:
    """Talk with a model; answers go to stdout, and everything else to stderr."""
    config = parser().parse_args(args[1:])
    check(config, "max_new_tokens")
    if config.source is None:
        raise ValueError("name a model: lit-llm chat SOURCE, where SOURCE is " + SOURCE)
    sampling = sampling_of(config)

    from lit_llm.inference.chat import Assistant, Session
    from lit_llm.inference.text import Asked

    asked = Asked(config.max_new_tokens, sampling, tuple(config.stop or ()))
    assistant = Assistant.of(open_model(config.source, config), config.template)
    session = Session(assistant, asked, config.seed, typed(config.system))
    settings = ("template", "max_new_tokens", *SAMPLING, "stop", "seed", "dtype")
    saved = {"source": config.source, "settings": {name: config[name] for name in settings}}
    talk = Talk(session, saved)
    if not sys.stdin.isatty():
        for number, line in enumerate(lines_of_stdin(), start=1):
            with at(f"line {number}"):
                if not talk.hear(line):
                    break
        return 0
    talk.note(f"{config.source}: template '{config.template}', {session.block_size} positions; /help tells more")
    if not assistant.template.ends_answers:
        talk.note("no token ends an answer: it ends after --max_new_tokens, or at a --stop string")
    converse(talk.hear, talk.note)
    return 0


def parser() -> Parser:
    """The options."""
    parser = Parser(
        prog="lit-llm chat",
        description=(
            "Talk with a model. On a terminal, /help shows what can be said beside messages; from a pipe, each line is "
            "a message. Only answers go to stdout."
        ),
    )
    add = parser.add_argument
    add("source", type=str | None, nargs="?", default=None, help=SOURCE)
    add("--template", type=str, default="source", help=TEMPLATE)
    add("--system", type=str, default="", help="what the assistant is told before the conversation")
    add("--max_new_tokens", type=int, default=512, help="tokens of an answer at most, or while positions last")
    add_sampling(parser)
    add_storage(parser)
    return parser


class Talk:
    """What is done with each message.

    Args:
        session: The conversation.
        saved: What is saved beside its messages.
    """

    def __init__(self, session: "Session", saved: dict[str, Any]) -> None:
        self.session, self.saved = session, saved

    def note(self, text: str) -> None:
        """Say something that is no answer."""
        sys.stdout.flush()
        print(visible(text), file=sys.stderr, flush=True)

    def hear(self, text: str) -> bool:
        """Answer a message, or do what a command says.

        Returns:
            Whether the conversation goes on.

        Raises:
            ValueError: If it is neither a command nor a message that can be answered.
        """
        if not text.strip():
            return True
        if text.startswith("/") and not text.startswith("//"):
            return self._obey(*text.strip().partition(" ")[::2])
        self._answer(text.removeprefix("/") if text.startswith("//") else text)
        return True

    def _answer(self, text: str) -> None:
        session = self.session
        if dropped := session.ask(text):
            self.note(f"({dropped} older messages dropped: the model has {session.block_size} positions)")
        reason = None
        try:
            with closing(session.answer()) as pieces:
                while True:
                    try:
                        piece = next(pieces)
                    except StopIteration as stop:
                        reason = stop.value
                        break
                    print(shown(piece), end="", flush=True)
        finally:
            print(flush=True)
        if reason == "length":
            why = "--max_new_tokens" if session.limit == session.max_new_tokens else "the model's positions end there"
            self.note(f"(cut after {session.limit} tokens: {why})")

    def _obey(self, command: str, text: str) -> bool:
        does: dict[str, Callable[[str], None]] = {
            "/reset": lambda _: self.session.reset(),
            "/system": lambda text: self.session.set_system(text.strip()),
            "/save": self._save,
            "/help": lambda _: self.note(help_text()),
            "/quit": lambda _: None,
        }
        if command not in does:
            raise ValueError(
                f"there is no command '{command}'; the commands are {', '.join(does)}, and a message that begins with "
                "a slash is written with two"
            )
        does[command](text)
        return command != "/quit"

    def _save(self, text: str) -> None:
        if not text.strip():
            raise ValueError("name a file: /save FILE")
        self.session.save(Path(text.strip()), self.saved)
        self.note(f"({len(self.session.messages)} messages saved)")


def help_text() -> str:
    """What can be said beside messages."""
    return HELP.format(commands="\n".join(f"{name:14} {text}" for name, text in COMMANDS.items()))
