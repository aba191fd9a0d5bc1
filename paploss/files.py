"""Files that are either whole or absent, and safe YAML."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from paploss.errors import BadConfig
from paploss.safe_yaml import LONGEST, load_yaml


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into that becomes `path` when the block ends without an exception.

    What is written goes to a neighbour first, is flushed to the disk, and is renamed into place:
    a reader, or a crash, sees the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, neighbour = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(neighbour, 0o644)
        os.replace(neighbour, path)
        _sync_folder(path.parent)
    except BaseException:
        Path(neighbour).unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Have a renaming in `folder` outlive a loss of power; some storage cannot, and needs not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_of_storage(error: BaseException) -> bool:
    """Whether storage is at fault, full or read-only or gone, in `error` or in what caused it."""
    return _of_storage(error) is not None


def storage_reason(error: BaseException, path: Path | None = None) -> str:
    """'cannot write PATH: No space left on device', where `is_of_storage`.

    Args:
        path: to name; the one that `error` names if not given.
    """
    found = _of_storage(error)
    if found is None:
        return str(error)
    where = path or found.filename or "to storage"
    return f"cannot write {where}: {found.strerror}"


def _of_storage(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_STORAGE:
            return error
        error = error.__cause__ or error.__context__
    return None


_OF_STORAGE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)
)


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with open_atomic(path) as file:
        file.write(text.encode())


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
        BadConfig: the file is missing, does not hold a mapping, or see `safe_yaml.load_yaml`.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path} is not valid YAML: {error}") from error
    value = load_yaml(text, str(path))
    if not isinstance(value, dict):
        raise BadConfig(f"{path} should hold keys and values, but holds {type(value).__name__}.")
    return value
