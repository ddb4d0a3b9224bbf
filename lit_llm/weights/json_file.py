"""JSON files that others wrote."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        ValueError: If the file cannot be read, or holds something else.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError(2, "No such file" if not path.exists() else "It is no file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read '{path}': {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested without end
        raise ValueError(f"'{path}' is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds no mapping of names to values, as a JSON file of settings does")
    return content
