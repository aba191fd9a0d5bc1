"""Is this machine fit for the trials of a search? Asked on it, before they start and by each actor.

The driver leaves what it expects in the experiment's folder; that a machine finds the very file is
the proof that it sees the same storage.
"""

import json
import platform
import secrets
import socket
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import paploss
from paploss.files import read_json, write_json

_FILE = ".machines.json"
_STORAGE = "docs/cluster/storage.md"


def expect(experiment: Path, files: Iterable[Path]) -> str:
    """Leave in `experiment` what every machine must have; the token that they must find there.

    Args:
        files: of the data set, and folders.
    """
    token = secrets.token_hex(8)
    expected = {
        "token": token,
        "driver": socket.gethostname(),
        "versions": versions(),
        "files": sorted(map(str, files)),
    }
    write_json(experiment / _FILE, expected)
    return token


def machine_problems(experiment: Path, token: str | None = None) -> list[str]:
    """What keeps this machine from running trials of `experiment`, a sentence each; [] if nothing.

    Costs a few milliseconds: nothing is imported.

    Args:
        token: what `expect` gave; None: any.
    """
    path = experiment / _FILE
    try:
        expected = read_json(path)
    except (OSError, json.JSONDecodeError) as error:
        if token is None and (experiment / "config.yaml").exists():
            return []  # the driver could not leave it, but this is the folder
        why = error.strerror if isinstance(error, OSError) else "it cannot be read"
        return [
            f"does not see {experiment}: {why}; put experiments on storage that all nodes share "
            f"({_STORAGE})"
        ]
    if token is not None and expected["token"] != token:
        return [
            f"sees another {experiment} than the driver does: it is no shared storage; put "
            f"experiments on storage that all nodes share ({_STORAGE})"
        ]
    return [*_version_problems(expected["versions"]), *_file_problems(expected["files"])]


def late_problems(experiment: Path) -> list[str]:
    """`machine_problems`, on machines that may have joined since the driver has looked at all.

    On the driver's own machine, what goes away meanwhile is for the trial to tell.
    """
    try:
        if read_json(experiment / _FILE)["driver"] == socket.gethostname():
            return []
    except (OSError, ValueError, KeyError, TypeError):
        pass  # which is a problem, or is none
    return machine_problems(experiment)


def versions() -> dict[str, str]:
    """Of what has to be the same on all machines; builds, such as +cpu and +cu126, may differ."""
    found = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "paploss": paploss.__version__,
    }
    return found | {package: _version(package) for package in ("torch", "ray")}


def data_files(data: Mapping[str, Any]) -> list[Path]:
    """Annotations and image folders of a data set, as an experiment's config.yaml holds it.

    Only absolute paths: what a relative one means is another thing on every machine.
    """
    splits = [data[name] for name in ("train", "val", "test") if name in data]
    paths = [Path(split[part]) for split in splits for part in ("annotations", "images")]
    return [path for path in paths if path.is_absolute()]


def _version_problems(expected: Mapping[str, str]) -> list[str]:
    here = versions()
    return [
        f"has {name} {here[name]}, but the driver has {version}; install the same on all nodes"
        for name, version in expected.items()
        if here[name] != version
    ]


def _file_problems(files: Iterable[str]) -> list[str]:
    missing = [file for file in files if not Path(file).exists()]
    if not missing:
        return []
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return [
        f"does not see the data set: {missing[0]}{more}; copy it to the same path on every node, "
        f"or put it on shared storage ({_STORAGE})"
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "missing"
