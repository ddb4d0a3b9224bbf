"""What a user is told of a corpus, once, in the run that tokenizes it and in later ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_corpora import TEXTS
from source_files import write

from lit_llm.data.bpe import BPE, TokenizerFile, train_bpe
from lit_llm.data.pretraining import Pretraining
from lit_llm.data.sources import Reading
from lit_llm.data.tokenizer import Bytes, Tokenizer, from_state, to_state

MARK = "<|endoftext|>"
Capture = pytest.CaptureFixture[str]


def told(capsys: Capture, source: Path, tokenizer: Tokenizer | None = None, **settings: Any) -> list[str]:
    """The lines beside the progress bar; the same but the first, in the same order, where nothing is tokenized."""
    lines = []
    for _ in range(2):
        data = Pretraining(str(source), tokenizer or Bytes(), block_size=4, batch_size=2, **settings)
        data.prepare_data()
        data.prepare_data()
        lines.append([line for line in capsys.readouterr().err.splitlines() if line and "B/s" not in line])
    assert lines[0][0].startswith(f"tokenized {source}: ")
    assert [line for line in lines[1] if "left out" not in line] == lines[0][1:]
    assert ("left out" in lines[0][0]) == any("left out" in line for line in lines[1])
    return [line.removeprefix(f"{source}: ") for line in lines[0]]


def documents(folder: Path, texts: list[str]) -> Path:
    for number, text in enumerate(texts):
        write(folder / f"{number}.txt", [text])
    return folder


def test_what_is_all_right_takes_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert len(told(capsys, documents(tmp_path / "a", ["the same length"] * 9), val_fraction=0)) == 1
    assert len(told(capsys, write(tmp_path / "b.txt", ["one text " * 20]))) == 1


def test_files_that_are_left_out(tmp_path: Path, capsys: Capture) -> None:
    documents(tmp_path / "a", ["one text", "another one"])
    write(tmp_path / "a" / "b.HTML", ["x"])
    write(tmp_path / "a" / "c.txt", [])
    first, second = told(capsys, tmp_path / "a", val_fraction=0)
    assert first.endswith("; 1 file left out (1 .html)")
    assert second == "1 documents hold no text"


def test_a_share_that_documents_cannot_meet(tmp_path: Path, capsys: Capture) -> None:
    first, line = told(capsys, documents(tmp_path / "a", ["a text " * 100] * 2), val_fraction=0.05)
    assert "1 texts occur again, on the same side" in first
    assert line.startswith("whole documents cannot meet val_fraction 0.05, so the text is cut by position: 5.0% are")
    texts = ["giant " * 20_000, *(f"text {i}" for i in range(1200))]
    path = write(tmp_path / "b.jsonl", texts)
    lines = told(capsys, path, val_fraction=0.4)
    assert len(lines) == 2
    assert "% of the text are held out where val_fraction 0.4 is asked for: documents are very unequal" in lines[1]


@pytest.mark.parametrize("mark", [MARK, "<|end_of_text|>", "</s>", "[EOS]"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_marks_that_nobody_split_at(tmp_path: Path, capsys: Capture, mark: str, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", [f"\n{mark}\n".join(TEXTS)])
    (line,) = told(capsys, path, val_fraction=0)[1:]
    advice = f"--data.reading.split_at '{mark}' divides them there"
    assert line == f"the text holds '{mark}' 5 times; if it stands between documents, {advice}"
    assert told(capsys, path, val_fraction=0, reading=Reading(split_at=mark))[1:] == []


def test_a_mark_that_occurs_nowhere(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "a.txt", [f"one{MARK}two{MARK}\n"])
    (line,) = told(capsys, path, val_fraction=0, reading=Reading(split_at="###"))[1:]
    assert line == "--data.reading.split_at '###' occurs nowhere in the text"
    assert told(capsys, path, val_fraction=0, reading=Reading(split_at=MARK))[1:] == []


# The end of a text.


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A tokenizer.json that calls the end of a text by a name of its own."""
    content = json.loads(train_bpe(["the cat sat on the mat"] * 9, 290, ["<|bos|>", "</s>"]))
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    return str(tmp_path / "tokenizer.json")


def test_a_tokenizer_without_a_known_end(tmp_path: Path, path: str, capsys: Capture) -> None:
    folder = documents(tmp_path / "a", ["the cat", "the mat"])
    assert told(capsys, folder, TokenizerFile(path), val_fraction=0)[1:] == [
        "no token stands between documents, since the tokenizer has no end-of-text token that is known; "
        "name one of its special tokens by --data.end_of_text: <|bos|>, </s>"
    ]
    tokenizer = TokenizerFile(path)
    assert told(capsys, folder, tokenizer, val_fraction=0, end_of_text="</s>")[1:] == []
    data = Pretraining(str(folder), tokenizer, 4, 2, val_fraction=0, end_of_text="</s>", mask_documents=True)
    end = tokenizer.special_ids["</s>"]
    ids = data.corpus.tokens("train").tolist()
    assert [i for i in ids if i == end] == [end, end]
    assert ids[-1] == end
    assert tokenizer.ends == {end}


def test_the_end_that_was_named_comes_along(path: str) -> None:
    """In a checkpoint, in a token folder, and in what tells tokenizers apart."""
    tokenizer, other = TokenizerFile(path), TokenizerFile(path)
    tokenizer.end_at("</s>")
    again = from_state(json.loads(json.dumps(to_state(tokenizer))))
    assert again.end_of_text == again.named_end == tokenizer.special_ids["</s>"]
    assert again.fingerprint() == tokenizer.fingerprint() != other.fingerprint()
    assert from_state(to_state(other)).end_of_text is None


@pytest.mark.parametrize(
    ("tokenizer", "told_of_it"),
    [
        (None, r"must be a special token of the tokenizer \(<\|bos\|>, </s>\), got '<eos>'"),
        (BPE(300), "must be null for BPE, which has its own, got '<eos>'"),
        (Bytes(), r"must be a special token of the tokenizer \(<\|endoftext\|>\), got '<eos>'"),
    ],
)
def test_an_end_that_is_none(path: str, tmp_path: Path, tokenizer: Tokenizer | None, told_of_it: str) -> None:
    with pytest.raises(ValueError, match=f"--data.end_of_text {told_of_it}"):
        Pretraining(str(write(tmp_path / "a.txt", ["x"])), tokenizer or TokenizerFile(path), end_of_text="<eos>")
