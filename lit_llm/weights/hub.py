"""Models of the Hugging Face hub, in its own cache on this machine."""

import re
from pathlib import Path

SETTINGS = ("config.json", "generation_config.json")
TOKENIZER = ("tokenizer*", "*.model", "vocab.json", "merges.txt", "special_tokens_map.json", "chat_template.jinja")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")  # and no pickles
NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
PATIENCE = 10  # seconds for an answer; a name that cannot be resolved is told of at once


def is_hub_name(name: str) -> bool:
    """Whether a name could be a model of the hub: `owner/name`, or `owner/name@revision`."""
    return NAME.fullmatch(name) is not None and not name.startswith(".")


def snapshot(name: str, with_weights: bool = True) -> Path:
    """The folder of a model, downloaded unless it is there.

    Args:
        name: `owner/name`, or `owner/name@revision` for a branch, a tag or a commit.
        with_weights: Whether to fetch more than its settings and its tokenizer.

    Raises:
        ValueError: If there is no such model, it may not be read, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download  # slow to import

    repository, _, revision = name.partition("@")
    patterns = [*SETTINGS, *TOKENIZER, *(WEIGHTS if with_weights else ())]
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns, etag_timeout=PATIENCE)
        )
    except Exception as error:  # some are those of the library's own HTTP library, which differs by version
        reason = str(error).removeprefix("Got: ").strip().split("\n")[0]
        advice = "set HF_HOME to a folder that can be written" if getattr(error, "filename", None) else "go online"
        raise ValueError(
            f"'{name}' is no folder here, and as a model of the Hugging Face hub it could not be fetched: {reason}; "
            f"{advice}, or give a local folder"
        ) from error
