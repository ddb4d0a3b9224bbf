"""Our own layout of a model: a folder with `settings.json` and safetensors files under our names, for any backbone."""

import json
from pathlib import Path
from typing import Any

SETTINGS = "settings.json"
VERSION = 1  # of the layout


def lit_settings(backbone: dict[str, Any], tokenizer: dict[str, Any] | None) -> str:
    """What `settings.json` holds.

    Args:
        backbone: The architecture, as configs and checkpoints hold it.
        tokenizer: State of the tokenizer. None: there is none.
    """
    content = {"version": VERSION, "backbone": backbone, "tokenizer": tokenizer}
    return json.dumps(content, ensure_ascii=False, indent=1)


def read_lit_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The architecture of the backbone and the state of the tokenizer; the tensors beside have the backbone's names.

    Args:
        folder: As `lit-llm export --format lit` writes it.

    Raises:
        ValueError: If its settings are missing, damaged, or of a later version.
    """
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, backbone, tokenizer = content["version"], content["backbone"], content["tokenizer"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"'{path}' is no settings file of an exported model: {error}") from error
    if version != VERSION:
        raise ValueError(f"'{path}' is of version {version}, and this lit-llm reads version {VERSION}")
    return backbone, tokenizer
