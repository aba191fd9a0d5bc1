"""Files that are either whole or absent, and safe YAML."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from paploss.errors import BadConfig


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader, or a crash, sees the old file or the new one.

    The text goes to a neighbour first, is flushed to the disk, and is renamed into place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, neighbour = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(neighbour, 0o644)
        os.replace(neighbour, path)
    except BaseException:
        Path(neighbour).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of `value` as JSON; floats survive to the last digit."""
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_yaml(path: Path, value: Any, header: str = "") -> None:
    """`write_atomic` of `value` as YAML in the order of its keys, after a comment `header`."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    write_atomic(path, comment + yaml.safe_dump(value, sort_keys=False, width=100))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, loaded safely.

    Raises:
        BadConfig: the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise BadConfig(f"{path} should hold keys and values, but holds {type(value).__name__}.")
    return value
