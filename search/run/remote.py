"""The files of an experiment that a mirror holds, and the storage they are on.

pyarrow does the copying: Ray Tune depends on it, and it speaks S3 and GCS with the credentials that
their own tools use.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs  # type: ignore[import-untyped]

TOP = (
    "config.yaml", "space.json", "history.csv", "events.jsonl", "status.json", "report.html",
    "best.yaml", "summary.json",
)  # fmt: skip
_MIRRORED = re.compile(
    "|".join(map(re.escape, TOP)) + r"|(journal|policy)/[A-Za-z0-9_][A-Za-z0-9._-]*\.json"
)
Connect = Callable[[str], tuple[Any, str]]


def open_remote(uri: str) -> tuple[Any, str]:
    """The file system of an address, and the path on it.

    Raises:
        OSError, pyarrow.ArrowInvalid: it cannot be reached.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return fs.LocalFileSystem(), unquote(parts.path)
    if parts.scheme == "s3":  # a small file is one request then, where it would be three
        uri = parts._replace(query=f"{parts.query}&allow_delayed_open=true".lstrip("&")).geturl()
    filesystem, path = fs.FileSystem.from_uri(uri)
    return filesystem, path.rstrip("/")


def local_names(experiment: Path) -> Iterator[str]:
    """What is mirrored of an experiment: first what a resume cannot do without."""
    first, rest = TOP[:2], TOP[2:]
    yield from first
    for folder in ("journal", "policy"):
        for path in sorted((experiment / folder).glob("*.json")):
            if is_mirrored(f"{folder}/{path.name}"):
                yield f"{folder}/{path.name}"
    yield from rest


def is_mirrored(name: str) -> bool:
    """Whether a name is one that a mirror holds: nothing else is ever read back from one."""
    return _MIRRORED.fullmatch(name) is not None


def remote_names(filesystem: Any, root: str) -> list[str]:
    """The names of mirrored files under `root`, in order."""
    selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
    files = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    start = root.strip("/") + "/"
    names = (info.path.strip("/").removeprefix(start) for info in files)
    return sorted(filter(is_mirrored, names))


def get(filesystem: Any, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def put(filesystem: Any, path: str, data: bytes) -> None:
    """Write a file whole or not at all, which object storage does by itself."""
    target = path
    if isinstance(filesystem, fs.LocalFileSystem):
        folder, _, name = path.rpartition("/")
        filesystem.create_dir(folder, recursive=True)
        target = f"{folder}/.{name}.tmp"
    with filesystem.open_output_stream(target) as stream:
        stream.write(data)
    if target != path:
        filesystem.move(target, path)


def one_line(error: Exception) -> str:
    """The first line of what a storage library says, which can be a page."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
