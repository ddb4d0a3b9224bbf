"""`lit-llm data show`: what it prints and writes, that it builds nothing but the data, and what it refuses."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from cli_runs import call, refusal, write_tiny, write_yaml
from text_runs import write_classification
from tiny_gpt2 import write_gpt2

from lit_llm.data.base import TextDataModule
from lit_llm.data.tokenizer import Bytes

EVIL = "<script>alert('x')</script> & \x1b[31m \"quoted\""
INSTRUCT = ("-c", "configs/instruct_alpaca.yaml", "--data.tokenizer=Bytes", "--data.block_size=301")


def evil_records(folder: Path) -> str:
    """Records that would like to be code."""
    rows = [{"instruction": f"{EVIL} {n}", "output": f"{EVIL} {n}"} for n in range(20)]
    (folder / "evil.json").write_text(json.dumps(rows), "utf-8")
    return str(folder / "evil.json")


class Page(HTMLParser):
    """A page with its tags in order, and its text."""

    is_loss = False

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.marked = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "rect"):
            self.open.append(tag)
        self.is_loss = "loss" in (dict(attrs).get("class") or "").split() and "title" in dict(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.is_loss = False

    def handle_data(self, data: str) -> None:
        self.text += data
        self.marked += data if self.is_loss else ""


def test_piped(tmp_path, capsys) -> None:
    """Without colours, what carries loss is in brackets; whatever a text holds, no escape reaches the reader."""
    result = call(capsys, "data", "show", *INSTRUCT, "--data.source", evil_records(tmp_path), "--width", 300)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    assert "### Response:⏎" in result.out
    assert re.search(r"⟦<script>alert\('x'\)</script> & ␛\[31m \"quoted\" \d+«<\|endoftext\|>»⟧", result.out)
    assert re.search(r"^carry loss +[\d,]+ targets", result.out, re.M)
    assert "19 for train, 1 for val" in result.out
    assert result.out.count("batch 1, row") == 3


def test_colours(tmp_path, capsys, monkeypatch) -> None:
    """On a terminal, green instead of brackets; NO_COLOR turns it off."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = call(capsys, "data", "show", "-c", write_tiny(tmp_path)).out
    assert "\x1b[1;32m" in shown
    assert "⟦" not in shown
    monkeypatch.setenv("NO_COLOR", "1")
    shown = call(capsys, "data", "show", "-c", tmp_path / "tiny.yaml").out
    assert "\x1b" not in shown
    assert "⟦" in shown


def test_a_page(tmp_path, capsys) -> None:
    """One file that asks for no other; what a text holds is text; the marked letters are those of the answers."""
    out = tmp_path / "page.html"
    source = evil_records(tmp_path)
    result = call(capsys, "data", "show", *INSTRUCT, "--data.source", source, "--html", out, "--examples", 2)
    assert result.code == 0, result.err
    assert f"wrote {out}" in result.err
    content = out.read_text("utf-8")
    page = Page(content)
    assert page.open == []
    assert "script" not in page.tags
    assert {"svg", "table", "style"} <= page.tags
    assert not {"src", "href", "action", "data"} & {name for name, _ in page.attributes}
    assert not re.search(r"url\(|@import|https?:", content)
    assert "\x1b" not in content
    assert "prefers-color-scheme" in content
    answers = re.findall(r"<script>alert\('x'\)</script> & ␛\[31m \"quoted\" \d+<\|endoftext\|>", page.marked)
    assert "".join(answers) == page.marked
    assert len(answers) == page.text.count("targets carry loss")
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "evil.json"}


def test_builds_no_network_and_reads_no_weights(tmp_path, capsys, monkeypatch) -> None:
    """A source whose weights are all NaN, which nobody could start from, is good enough; no layer is ever made."""
    folder = write_gpt2(tmp_path / "gpt2")
    content = bytearray((folder / "model.safetensors").read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start:] = b"\xff" * (len(content) - start)
    (folder / "model.safetensors").write_bytes(content)
    config = write_tiny(tmp_path)
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *_: pytest.fail("a layer was made"))
    result = call(capsys, "data", "show", "-c", config, "--model.init_from", folder)
    assert result.code == 0, result.err
    assert "places 0 to 6" in result.out
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "tiny.yaml", "cache", "gpt2"}


def test_a_data_module_of_ones_own(tmp_path, capsys) -> None:
    """It goes by what the batches hold."""
    result = call(capsys, "data", "show", "-c", write_classification(tmp_path), "--split=val")
    assert result.code == 0, result.err
    assert re.search(r"^classes +ham \d+, spam \d+$", result.out, re.M)
    assert "class ham · " in result.out


class Odd(TextDataModule):
    """Data whose batches nobody has heard of."""

    def __init__(self) -> None:
        super().__init__(Bytes(), 7, 2)

    def train_dataloader(self) -> list[dict[str, torch.Tensor]]:
        return [{"pixels": torch.zeros(2, 3)}]


def test_batches_of_another_kind(tmp_path, capsys) -> None:
    """Their shapes are told, on the page as well."""
    config = write_tiny(tmp_path)
    content = config.read_text().partition("data:\n")[0] + "data:\n  class_path: test_show_command.Odd\n"
    out = tmp_path / "page.html"
    result = call(capsys, "data", "show", "-c", write_yaml(tmp_path / "odd.yaml", content), "--html", out)
    assert result.code == 0, result.err
    for shown in (result.out, out.read_text("utf-8")):
        assert "no ids with targets that could be shown (dict: pixels (2, 3) torch.float32)" in shown


def test_help(capsys) -> None:
    """It lists the action, and the action its options."""
    assert "  show " in call(capsys, "data", "--help").out
    shown = call(capsys, "data", "show", "--help").out
    assert shown.startswith("usage: lit-llm data show")
    for option in ("--examples", "--split", "--html", "--width", "--batches"):
        assert option in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "data has one action, 'show', not ''"),
        (("shw", "-c", "tiny.yaml"), "data has one action, 'show', not 'shw'"),
        (("show",), "--data and --model must be given"),
        (("show", "-c", "missing.yaml"), "cannot read the config file 'missing.yaml'"),
        (("show", "-c", "tiny.yaml", "--split=dev"), "'split' must be one of"),
        (("show", "-c", "tiny.yaml", "--split=test"), "no text is held out for testing"),
        (("show", "-c", "tiny.yaml", "--examples=-1"), "--examples -1 cannot be: it is at least 0"),
        (("show", "-c", "tiny.yaml", "--batches=0"), "--batches 0 cannot be"),
        (("show", "-c", "tiny.yaml", "--width=3"), "--width 3 cannot be"),
        (("show", "-c", "tiny.yaml", "--html=nowhere/x.html"), "--html nowhere/x.html lies in a folder that does not"),
        (("show", "-c", "tiny.yaml", "--html=."), "--html . is a folder"),
        (("show", "-c", "tiny.yaml", "--ckpt_path=best"), "data show has no use for --ckpt_path best"),
        (("show", "-c", "tiny.yaml", "--data.source=gone.txt"), "'gone.txt' does not exist"),
    ],
)
def test_refusals(tmp_path, capsys, monkeypatch, options, words) -> None:
    monkeypatch.chdir(write_tiny(tmp_path).parent)
    assert words in refusal(call(capsys, "data", *options))
    assert not (tmp_path / "nowhere").exists()
