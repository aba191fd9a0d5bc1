"""Names of files that others wrote down: they must not lead out of the folder they start from."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def stays_inside(name: str) -> bool:
    """Whether `name`, joined to a folder, is a place in it; links inside may lead where they do.

    On any system: neither absolute, nor on another drive, nor by way of "..".
    """
    if not name or "\0" in name:
        return False
    ways = (PurePosixPath(name), PureWindowsPath(name))
    return not any(way.is_absolute() or way.anchor or ".." in way.parts for way in ways)


def is_plain_name(name: str) -> bool:
    """Whether `name` is that of one file or folder, of ordinary characters alone."""
    return _PLAIN.fullmatch(name) is not None and len(name) <= 255


def is_there(path: Path, *, folder: bool = False) -> bool:
    """Whether there is a file, or folder, of that name; a name that can be none is not there.

    pathlib raises for names that are too long, and for folders that may not be looked into.
    """
    try:
        return path.is_dir() if folder else path.is_file()
    except (OSError, ValueError):
        return False
