"""lit-llm chat at a real terminal: what is typed into it, and every byte that comes out."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from speaking import COMMANDS, write_speaking

READLINE = re.compile(r"\x1b\[\?2004[hl]\r?")  # what it says itself: that pasted lines are welcome as one
PROMPT, CTRL_C, CTRL_D = "> ", "\x03", "\x04"
PASTE = "\x1b[200~{}\x1b[201~"
POSITIONS = 40_000  # so many that an endless answer lasts until it is stopped


class Terminal:
    """The command at a terminal of its own, in a process of its own."""

    def __init__(self, *args: object, **options: object) -> None:
        self.leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, 200))
        env = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "INPUTRC": os.devnull, "LC_ALL": "C.UTF-8"}
        streams = {"stdin": follower, "stdout": follower, "stderr": follower} | options
        command = [sys.executable, "-m", "lit_llm", "chat", *map(str, args)]
        # A session with this terminal as its own, so that Ctrl-C reaches it as a signal.
        self.process = subprocess.Popen(
            command,
            env=env,
            start_new_session=True,
            preexec_fn=_take_terminal,
            **streams,  # type: ignore[call-overload]
        )
        os.close(follower)
        self.raw = ""

    def type(self, text: str) -> None:
        os.write(self.leader, text.encode())

    def until(self, wanted: str, seconds: float = 120) -> str:
        """What comes up to the end of a text, and is taken from what is there."""
        deadline = time.monotonic() + seconds
        while wanted not in self.raw:
            assert time.monotonic() < deadline, f"no {wanted!r} in {self.raw[-500:]!r}"
            if select.select([self.leader], [], [], 0.2)[0]:
                # Where the other side is closed, this raises: it has ended.
                self.raw = READLINE.sub("", self.raw + os.read(self.leader, 4096).decode())
        found, _, self.raw = self.raw.partition(wanted)
        return found + wanted

    def say(self, text: str, end: str = "\r") -> str:
        """Type something; what is written between its echo and the next prompt, with line breaks as they were sent."""
        if text == CTRL_C:
            self.rests()
        self.type(text + end)
        return self.until(f"\n{PROMPT}").removesuffix(PROMPT).replace("\r\n", "\n")

    def rests(self) -> None:
        """Wait until it does nothing but wait: a signal just before that is noticed with the next key (CPython)."""
        stat, asleep = Path(f"/proc/{self.process.pid}/stat"), 0
        while asleep < 5:
            time.sleep(0.05)
            is_asleep = not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "S"
            asleep = asleep + 1 if is_asleep else 0

    def code(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """No failure leaves it running."""
        self.process.kill()
        self.process.wait()
        os.close(self.leader)


def _take_terminal() -> None:
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking(tmp_path_factory.mktemp("model") / "m", POSITIONS)


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[Terminal]:
    """One program for all tests: each leaves it at a prompt, which is a test in itself."""
    with Terminal(folder, "--max_new_tokens", POSITIONS // 2) as terminal:
        assert terminal.until(PROMPT).count("/help tells more") == 1
        yield terminal
        terminal.type("/quit\r")
        assert terminal.code() == 0


@pytest.fixture
def terminal(opened: Terminal) -> Terminal:
    opened.say("/reset")
    return opened


def saved(terminal: Terminal, path: Path) -> list[dict[str, str]]:
    terminal.say(f"/save {path}")
    return json.loads(path.read_text())["messages"]


def test_an_answer_streams(terminal: Terminal) -> None:
    """Its beginning is there long before its end; Ctrl-C stops it, keeps what came, and the session goes on (L10)."""
    terminal.type("go!\r")
    terminal.until("xyzxyz")
    terminal.type(CTRL_C)
    rest = terminal.until(f"\n{PROMPT}")
    assert "(stopped)" in rest
    assert terminal.process.poll() is None
    assert terminal.say("who?").endswith("\ncat sun\n")


def test_an_impatient_user(terminal: Terminal) -> None:
    """More interrupts than one, however fast, end no more than the answer."""
    terminal.type("go!\r")
    terminal.until("xyz")
    for _ in range(5):
        os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.until(f"\n{PROMPT}")
    assert terminal.say("who?").endswith("\ncat sun\n")


def test_what_has_come_is_the_turn(terminal: Terminal, tmp_path: Path) -> None:
    """Of an answer that was stopped; it is saved as it is, and only what this session wrote is written again."""
    terminal.type("go!\r")
    terminal.until("xyz")
    terminal.type(CTRL_C)
    terminal.until(f"\n{PROMPT}")
    question, answer = saved(terminal, tmp_path / "a.json")
    assert question == {"role": "user", "content": "go!"}
    assert re.fullmatch(r"(xyz)+x?y?", answer["content"])
    terminal.say("who?")
    assert [m["content"] for m in saved(terminal, tmp_path / "a.json")[2:]] == ["who?", "cat sun"]
    (tmp_path / "b.json").write_text("mine")
    assert "is there already and not of this session" in terminal.say(f"/save {tmp_path / 'b.json'}")
    assert (tmp_path / "b.json").read_text() == "mine"
    assert "cannot write" in terminal.say(f"/save {tmp_path / 'no' / 'b.json'}")
    assert "cannot write" in terminal.say("/save ~nobody-of-that-name/b.json")
    assert "cannot write" in terminal.say(f"/save {'b' * 300}")
    assert "name a file" in terminal.say("/save")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_ctrl_c_at_the_prompt(terminal: Terminal) -> None:
    """It leaves the line, says how to leave the program, and does not."""
    terminal.type("half a wo")
    terminal.until("half a wo")
    assert "(Ctrl-D or /quit leaves)" in terminal.say(CTRL_C, end="")
    assert terminal.say("who?").endswith("\ncat sun\n")


def test_empty_lines_are_no_messages(terminal: Terminal, tmp_path: Path) -> None:
    for line in ("", "   ", "\t"):
        terminal.say(line)
    assert saved(terminal, tmp_path / "a.json") == []


def test_messages_of_several_lines(terminal: Terminal, tmp_path: Path) -> None:
    """By backslashes, between quotes, and pasted: one message each; a slash at the beginning by two."""
    for lines in (["one\\", "two\\"], ['"""', "three"], ['"""four', "", "five"]):
        for line in lines:
            terminal.type(line + "\r")
            terminal.until("\n. ")
        assert terminal.say("why?" if lines[0] == "one\\" else 'why?"""').endswith("\ncat sun\n")
    assert terminal.say(PASTE.format("six\rseven\r\rwhy?")).endswith("\ncat sun\n")
    assert terminal.say("//eight?").endswith("\ncat sun\n")
    asked = [m["content"] for m in saved(terminal, tmp_path / "a.json") if m["role"] == "user"]
    assert asked == ["one\ntwo\nwhy?", "three\nwhy?", "four\n\nfive\nwhy?", "six\nseven\n\nwhy?", "/eight?"]


def test_ctrl_c_within_a_message_of_several_lines(terminal: Terminal, tmp_path: Path) -> None:
    """All of it is forgotten."""
    terminal.type('"""one\r')
    terminal.until("\n. ")
    terminal.type("two")  # a signal between a prompt and the wait for its line is seen at the next key alone
    terminal.until("two")
    terminal.say(CTRL_C, end="")
    assert terminal.say("who?").endswith("\ncat sun\n")
    assert saved(terminal, tmp_path / "a.json")[0]["content"] == "who?"


def test_earlier_lines_come_back(terminal: Terminal) -> None:
    """By the arrow; nothing of them is kept in a file."""
    terminal.say("who is it?")
    assert terminal.say("\x1b[A").endswith("\ncat sun\n")


def test_nothing_that_the_model_writes_commands_the_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """S24: its escape codes, bells and changes of direction are to be seen; what is saved is what it wrote."""
    said = terminal.say("now#")
    assert "\u241b[31m\u2407ok\\u009bB\\u202e\u240d\n" in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said.removeprefix("now#"))
    assert saved(terminal, tmp_path / "a.json")[1]["content"] == COMMANDS


def test_commands(terminal: Terminal, tmp_path: Path) -> None:
    """An unknown one names those that there are; the system message outlives a reset."""
    assert "there is no command '/sistem'; the commands are /reset, /system, /save" in terminal.say("/sistem be brief")
    assert all(command in terminal.say("/help") for command in ("/reset", "/system TEXT", "/save FILE", "/quit"))
    terminal.say("who?")
    terminal.say("/system Be brief.")
    assert [m["role"] for m in saved(terminal, tmp_path / "a.json")] == ["system", "user", "assistant"]
    terminal.say("/reset")
    assert saved(terminal, tmp_path / "a.json") == [{"role": "system", "content": "Be brief."}]
    terminal.say("/system")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["settings"]["template"] == "source"
    assert saved(terminal, tmp_path / "a.json") == []


def test_a_conversation_beyond_the_positions(tmp_path: Path) -> None:
    """The oldest turns are dropped, with a notice; a message that is too long is refused and the session goes on.

    Ctrl-D leaves, with exit code 0.
    """
    with Terminal(write_speaking(tmp_path / "m", 48), "--system", "Be brief") as terminal:
        terminal.until(PROMPT)
        assert "dropped" not in terminal.say("first?")
        assert "dropped" not in terminal.say("second?")
        assert "(2 older messages dropped: the model has 48 positions)" in terminal.say("a long one?")
        refused = terminal.say("z" * 40 + "?")
        assert "the message is too long: its 50 tokens" in refused
        assert "cat" not in refused
        assert "(cut after 16 tokens: the model's positions end there)" in terminal.say("a longer message to go!")
        assert terminal.say("who?").endswith("\ncat sun\n")
        roles = [m["role"] for m in saved(terminal, tmp_path / "a.json")]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)]
        terminal.type(CTRL_D)
        assert terminal.code() == 0


def test_answers_into_a_file(folder: Path, tmp_path: Path) -> None:
    """What is typed at and what is told stays on the terminal; the answers are as the model wrote them."""
    with (
        open(tmp_path / "answers", "wb") as file,
        Terminal(folder, "--max_new_tokens=30", stdout=file) as terminal,
    ):
        terminal.until(PROMPT)
        terminal.type("who?\r")
        terminal.until(PROMPT)
        terminal.type("now#\r")
        terminal.until(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.code() == 0
    assert (tmp_path / "answers").read_bytes().decode() == f"cat sun\n{COMMANDS}\n"
