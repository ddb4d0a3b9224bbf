"""The tokenizer that comes along with a model: found in its folder, with what the settings there say of it."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_llm.data.bpe import END_OF_TEXT, encoding_from_json
from lit_llm.data.ranks import Ranks, llama_3
from lit_llm.data.sentence_pieces import SentencePieces
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.tokenizer_json import TokenizerJSON, vocabulary


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer in a Hugging Face folder.

    Args:
        folder: Where `tokenizer.json` lies, or a `.model` file of sentencepiece or of Llama 3's ranks; beside it
            `tokenizer_config.json`, `chat_template.jinja`, `special_tokens_map.json`, `generation_config.json` and
            `config.json`, each if there is one.

    Returns:
        A tokenizer whose state holds all of it, so that the folder may be deleted.

    Raises:
        ValueError: If there is no tokenizer, a file cannot be read, or the tokenizer has ids that the model of
            `config.json` does not know.
    """
    settings = _settings(folder)
    path = _file_in(folder)
    try:
        tokenizer, control = (_from_json if path.suffix == ".json" else _from_model_file)(path.read_bytes(), settings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"'{path}' is no tokenizer that can be used: {reason}") from error
    _obey(settings, tokenizer, control)
    rows = settings["vocab_size"]
    if rows is not None and tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer '{path}' has {tokenizer.vocab_size} ids and the model beside it knows {rows} (vocab_size "
            "in config.json); take both from the same place"
        )
    return tokenizer


def _file_in(folder: Path) -> Path:
    if (path := folder / "tokenizer.json").is_file():
        return path
    models = sorted(folder.glob("*.model"))
    if len(models) != 1:
        many = f", but {len(models)} files *.model" if models else ", nor a file *.model"
        raise ValueError(f"the folder '{folder}' holds no tokenizer.json{many}")
    return models[0]


def _obey(settings: dict[str, Any], tokenizer: Tokenizer, control: dict[str, int]) -> None:
    """Set what stands around a text, where the settings say it; an id that is text is the default of a config."""
    begin, end = (control.get(settings[name], settings[f"{name}_id"]) for name in ("bos_token", "eos_token"))
    if end in control.values():
        tokenizer.end_of_text = end
    known = dict.fromkeys(i for i in settings["eos_token_ids"] if i in control.values())
    tokenizer.other_ends = tuple(i for i in known if i != tokenizer.end_of_text)
    if settings["add_bos_token"] is not None and not isinstance(tokenizer, TokenizerJSON | Ranks):
        tokenizer.begin_of_text = begin if settings["add_bos_token"] and begin in control.values() else None
    template = tokenizer.chat_template = settings["chat_template"]
    if template and tokenizer.begin_of_text is None and begin in control.values() and "bos_token" in template:
        # A token that begins no text, and which the template writes: only the template knows it from now on.
        name = next(name for name, i in control.items() if i == begin)
        tokenizer.chat_template = f"{{%- set bos_token = {json.dumps(name)} %}}{template}"


def _settings(folder: Path) -> dict[str, Any]:
    """What the files of a folder say around its tokenizer; of two that say it, the one closer to the tokenizer."""
    config = _read(folder / "config.json")
    generation, own = _read(folder / "generation_config.json"), _read(folder / "tokenizer_config.json")
    merged = {**config, **generation, **_read(folder / "special_tokens_map.json"), **own}
    settings: dict[str, Any] = {"add_bos_token": own.get("add_bos_token")}
    settings["vocab_size"] = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    for role in ("bos_token", "eos_token"):
        token, ids = merged.get(role), merged.get(f"{role}_id")
        settings[role] = token.get("content") if isinstance(token, dict) else token
        settings[f"{role}_ids"] = ids if isinstance(ids, list) else [ids]
        settings[f"{role}_id"] = next(iter(settings[f"{role}_ids"]), None)
    template = own.get("chat_template")
    if isinstance(template, list):  # several by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    path = folder / "chat_template.jinja"
    settings["chat_template"] = path.read_text(encoding="utf-8") if path.is_file() else template
    return settings


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of settings; none is an empty one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' is no settings file that can be read: {error}") from error
    return content


def _from_model_file(content: bytes, settings: dict[str, Any]) -> tuple[Tokenizer, dict[str, int]]:
    """A tokenizer and its control tokens, from ranks (a base64 token and its number a line) or from pieces."""
    if re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", content):
        ranks = llama_3(content)
        return ranks, ranks.encoding._special_tokens
    pieces = SentencePieces(content)
    return pieces, pieces.control


def _from_json(content: bytes, settings: dict[str, Any]) -> tuple[Tokenizer, dict[str, int]]:
    """A tokenizer and its control tokens, from a file of the `tokenizers` library."""
    data = json.loads(content)
    data["added_tokens"] = list(_added_tokens(data["added_tokens"], vocabulary(data), settings))
    control = {token["content"]: token["id"] for token in data["added_tokens"] if token["special"]}
    tokenizer = _run(data)
    tokenizer.begin_of_text, tokenizer.end_of_text = _first_id(data.get("post_processor")), control.get(END_OF_TEXT)
    return tokenizer, control


def _added_tokens(
    added: list[dict[str, Any]], ids: dict[str, int], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Those of a file, the begin and the end of a text as special, without special ones that the model has no row for.

    Gemma 3's text models are such a case: one id for images is beyond their table.
    """
    rows, ends = settings["vocab_size"], {settings["bos_token"], settings["eos_token"]}
    for token in added:
        special = token["special"] or token["content"] in ends
        if not special or rows is None or token["id"] < rows:
            yield {**token, "special": special}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for name in ends & ids.keys() - {token["content"] for token in added}:
        yield {"id": ids[name], "content": name, **flags, "special": True}


def _run(data: dict[str, Any]) -> TokenizerJSON | Ranks:
    """The fastest way that gives the ids of the file: tiktoken for a plain byte-level BPE."""
    content = json.dumps(data, ensure_ascii=False)
    plain = all(t["special"] and not (t.get("lstrip") or t.get("rstrip")) for t in data["added_tokens"])
    if data["model"].get("type", "BPE") == "BPE" and plain:
        with suppress(ValueError):
            return Ranks(encoding_from_json(content))
    return TokenizerJSON(content)


def _first_id(processor: dict[str, Any] | None) -> int | None:
    """The control token that a post-processor puts before a text."""
    for step in (processor or {}).get("processors", [processor]):
        if step and step["type"] == "TemplateProcessing":
            first = step["single"][0].get("SpecialToken")
            return step["special_tokens"][first["id"]]["ids"][0] if first else None
        if step and step["type"] in ("BertProcessing", "RobertaProcessing"):
            return step["cls"][1]
    return None
