"""Pretrained weights that a detector starts from: here, or fetched before anything is spent."""

import contextlib
import copy
import socket
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.runner.checkpoint import get_external_models

from paploss.errors import BadConfig
from paploss.files import read_json
from paploss.paths import is_there
from trainers.config import DetectorConfig
from trainers.mmdet.checkpoints import load_weights, use_for_mmengine

_NETWORK_SECONDS = 30.0
"""Without a network, some systems keep a connection waiting for many minutes."""


def check_weights(detector: DetectorConfig) -> None:
    """See to it that the checkpoints named in the detector's `init_cfg`s are on this machine.

    Those that have a URL are fetched if need be.

    Raises:
        BadConfig: a checkpoint that is not here and cannot be fetched, with where it should be; one
            that is more than weights.
    """
    for where, named in pretrained(detector.model):
        checkpoint = _with_url(named, detector.name)
        is_url = "://" in checkpoint
        file = _fetched(checkpoint) if is_url else Path(checkpoint)
        if is_there(file):
            load_weights(file, mapped=True)
            continue
        part = where.rpartition(".")[0]
        by_hand = (
            f"Put the file there, or train from nothing: --set detector.model.{where}=null, and "
            f"freeze nothing: --set detector.model.{part}.frozen_stages=-1."
        )
        problem = f"detector {detector.name} starts from {named}, which is not at {file}"
        if not is_url:
            raise BadConfig(f"{problem}. {by_hand}")
        try:
            _fetch(checkpoint)
        except (OSError, HTTPException) as error:
            raise BadConfig(
                f"{problem} and cannot be fetched from {checkpoint}: {error}. {by_hand} (The "
                "folder is $TORCH_HOME/hub/checkpoints.)"
            ) from error
        load_weights(file, mapped=True)


def with_urls(detector: DetectorConfig) -> DetectorConfig:
    """`detector` with a URL in place of every checkpoint that has a name, as torchvision's have.

    mmengine knows the URLs too, but does not give them where torchvision is not installed.

    Raises:
        BadConfig: a name that is not known.
    """
    model = copy.deepcopy(detector.model)
    for where, named in pretrained(model):
        section: Any = model
        for key in where.split("."):
            section = section[int(key) if isinstance(section, list | tuple) else key]
        section["checkpoint"] = _with_url(named, detector.name)
    return detector.model_copy(update={"model": model})


def pretrained(settings: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(dotted path, checkpoint) of every section of `settings` that initialises from one.

    Raises:
        BadConfig: such a section names none.
    """
    if isinstance(settings, dict):
        if settings.get("type") == "Pretrained":
            checkpoint = settings.get("checkpoint")
            if not isinstance(checkpoint, str) or not checkpoint:
                raise BadConfig(
                    f"{'.'.join(path)}: checkpoint is {checkpoint!r}; expected a file, a URL, or a "
                    "name such as torchvision://resnet50."
                )
            yield ".".join(path), checkpoint
        items = settings.items()
    else:
        items = ((str(index), value) for index, value in enumerate(settings))
    for key, value in items:
        if isinstance(value, dict | list | tuple):
            yield from pretrained(value, (*path, key))


def _with_url(checkpoint: str, detector: str) -> str:
    """`checkpoint` if it is a file or a URL, else the URL of that name."""
    scheme, separator, name = checkpoint.partition("://")
    if not separator or scheme in ("http", "https"):
        return checkpoint
    url = _NAMES[scheme]().get(name) if scheme in _NAMES else None
    if url is None:
        raise BadConfig(
            f"detector {detector}: the checkpoint {checkpoint} is not known; expected a file, a "
            f"URL, or a name that mmengine knows after one of {[*_NAMES]} and ://."
        )
    return url


def _torchvision() -> dict[str, str]:
    """As `get_torchvision_models` of mmengine, which imports torchvision for more of them."""
    folder = Path(mmengine.__file__).parent / "hub"
    urls: dict[str, str] = read_json(folder / "torchvision_0.12.json")
    return urls


_NAMES = {
    "torchvision": _torchvision,
    "open-mmlab": get_external_models,
    "openmmlab": get_external_models,
}


def _fetched(url: str) -> Path:
    """Where torch keeps what it has fetched from `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _fetch(url: str) -> Path:
    file = _fetched(url)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with _impatient():
            torch.hub.download_url_to_file(url, str(file), progress=False)
    return file


def _find(checkpoint: str) -> Path:
    """The file of whatever a checkpoint is called."""
    found = _with_url(checkpoint, "of this training")
    return _fetch(found) if "://" in found else Path(found).expanduser()


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


use_for_mmengine(_find)
