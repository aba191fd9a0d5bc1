"""Checkpoints read as weights and plain data alone: no file can run code while it is loaded.

Where a checkpoint holds more than weights, mmengine says so in its log and loads it as a pickle,
which may do anything. Here mmengine is given one loader for whatever a checkpoint is called.
"""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from paploss.errors import BadConfig


class _NotKept:
    """In place of the history of a logged value, which only smooths the log's next lines."""

    def __setstate__(self, state: Any) -> None:
        pass


def _no_attribute(value: Any, name: str) -> None:
    """In place of `getattr`, by which a history names its own methods, and others any attribute."""


def load_weights(file: Path, map_location: Any = None, *, mapped: bool = False) -> Any:
    """What `torch.save` wrote to `file`: tensors, numbers, texts, containers and arrays.

    Args:
        mapped: leave the tensors on disk, for a look at a large file.

    Raises:
        BadConfig: it holds anything else, or is no checkpoint.
    """
    try:
        with torch.serialization.safe_globals([*_ACCEPTED]):
            mmap = mapped and zipfile.is_zipfile(file)  # files of old are no archives
            loaded = torch.load(file, map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {named[1]}" if named else "it is more than a state of tensors"
        raise BadConfig(
            f"the checkpoint {file} is not loaded: {what}, and loading that could run code. If you "
            "trust whoever made it, load it with torch and save its `state_dict` alone."
        ) from error
    except Exception as error:  # torch's reader of damaged files raises what it likes
        reason = " ".join(str(error).split())[:200]
        raise BadConfig(
            f"the checkpoint {file} cannot be loaded: {reason or type(error).__name__}. It is "
            "damaged or no checkpoint: fetch it again, or give another."
        ) from error
    hub = loaded.get("message_hub") if isinstance(loaded, dict) else None
    if isinstance(hub, dict):
        hub["log_scalars"] = {}
    return loaded


def use_for_mmengine(find: Callable[[str], Path]) -> None:
    """Have mmengine load all checkpoints by `load_weights`.

    Args:
        find: the file of a path, a URL or a name, fetched if need be.
    """

    def load_from_weights(filename: str, map_location: Any = None, **options: Any) -> Any:
        return load_weights(find(filename), map_location)

    CheckpointLoader.register_scheme(_SCHEMES, load_from_weights, force=True)


_SCHEMES = [
    *("", "http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://", "openmmlab://"),
    *("mmcls://", "pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"),
]
"""All that mmengine has a loader of its own for."""

_ARRAYS = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
}
_ACCEPTED: tuple[Any, ...] = (
    slice,
    np.ndarray,
    np.dtype,
    # numpy 2 has moved its core; checkpoints have either name.
    *(
        (make, f"numpy.{core}.{name}")
        for name, make in _ARRAYS.items()
        for core in ("core", "_core")
    ),
    *{type(np.dtype(kind)) for kind in (*"?bBhHiIlLqQefd", "U1", "S1")},
    (_NotKept, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_no_attribute, "builtins.getattr"),
)
