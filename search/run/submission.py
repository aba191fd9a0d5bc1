"""A search's settings, checked where they are written for a cluster that is elsewhere.

What can be known here is said here, before anything is uploaded. The data set need not be on this
machine; whether it is on the cluster's, the search finds out there before its first trial.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paploss.configs import config_folder, find
from paploss.errors import BadConfig, BadData
from paploss.files import read_yaml
from search.run.load import load_search, parse_overrides
from trainers.datasets.coco import DataConfig

# Stands in for a data set that only the cluster has.
_UNSEEN = {
    "name": "unseen",
    "classes": ["unseen"],
    **{split: {"annotations": "/", "images": "/"} for split in ("train", "val", "test")},
}


@dataclass(frozen=True)
class Checked:
    """Settings that are valid as far as this machine can tell.

    Attributes:
        name: of the experiment.
        storage: absolute; on the cluster.
        data: None if it was not looked at, because this machine does not have it.
        notes: what the user should know, a line each.
    """

    name: str
    storage: Path
    data: DataConfig | None
    notes: tuple[str, ...]


def check_for_cluster(config: str, overrides: list[str], *, trust_code: bool = False) -> Checked:
    """Read the search YAML `config` with `overrides` ("key=value") for use on a cluster.

    Args:
        trust_code: as for `load_search`.

    Raises:
        BadConfig: as `load_search`, or storage or data that are places of this machine only.
    """
    values = parse_overrides(overrides)
    named, start = _named(config, values, "data"), _named(config, values, "warm_start")
    earlier = start.get("experiment") if isinstance(start, Mapping) else None
    earlier = values.get("warm_start.experiment", earlier)
    unseen, unknown = _is_elsewhere(named), _is_elsewhere(earlier)
    if unknown:
        values = {key: value for key, value in values.items() if not key.startswith("warm_start.")}
    replaced = ({"data": _UNSEEN} if unseen else {}) | ({"warm_start": None} if unknown else {})
    settings, task = load_search(config, values | replaced, trust_code=trust_code)
    if not settings.storage.is_absolute():
        raise BadConfig(
            f"storage is {settings.storage}, which on the cluster would be in a job's temporary "
            "folder. Give the folder for experiments there, on storage that its machines share: "
            "--storage /shared/experiments."
        )
    notes = [f"not checked: the data set {named} is not on this machine."] if unseen else []
    notes += [f"not checked: the experiment {earlier} is not on this machine."] if unknown else []
    return Checked(settings.name, settings.storage, None if unseen else task.data, tuple(notes))


def entry_of(config: str, folder: Path) -> tuple[str, Path | None]:
    """How the driver names `config` when `folder` is its working folder; and the file, if it is
    not a shipped one.

    Raises:
        BadConfig: the file is outside of `folder`, or there is none.
    """
    file = find("search", config)
    if file.is_relative_to(config_folder()):
        return file.stem, None
    if not file.is_relative_to(folder):
        raise BadConfig(
            f"{file} is outside of {folder}, which is what the cluster gets. Give the folder that "
            "holds it: --working-dir FOLDER."
        )
    return file.relative_to(folder).as_posix(), file


def _is_elsewhere(path: Any) -> bool:
    """Whether it is a place of the cluster that this machine does not have."""
    return isinstance(path, str) and Path(path).is_absolute() and not Path(path).exists()


def _named(config: str, values: Mapping[str, Any], key: str) -> Any:
    """What a search has as its `key`, by itself, an override, or the base it is laid over."""
    if key in values:
        return values[key]
    path = find("search", config)
    for _ in range(20):  # a circle of bases is `load_search`'s to complain of
        settings = read_yaml(path)
        if key in settings or not isinstance(settings.get("base"), str):
            return settings.get(key)
        path = find("search", settings["base"], path.parent)
    return None


def check_data_travels(data: DataConfig, holds: Callable[[Path], bool], folder: Path) -> None:
    """A data set below the folder that is uploaded must be among what is uploaded.

    Args:
        holds: whether an absolute path of this machine is.

    Raises:
        BadData: it is not.
    """
    for split, paths in data.splits().items():
        for path in (paths.annotations, paths.images):
            if path.is_relative_to(folder) and not holds(path):
                raise BadData(
                    f"the data set's {split} is at {path}, which is not uploaded. Data sets have "
                    "to be on the cluster, at a path that all its machines see: "
                    "--set data=/shared/FOLDER/dataset.yaml."
                )
