"""A search YAML read into settings: files it names looked up, overrides applied, all checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paploss.errors import BadConfig
from paploss.safe_yaml import load_yaml
from paploss.strict import nearest, parse
from search.config import OWN_SETTINGS, AlgorithmConfig, SearchConfig
from search.run.warm_start import is_experiment, start_from
from trainers.config import TaskConfig
from trainers.read import read_complete, with_files


def load_search(
    path: str, overrides: Mapping[str, Any], *, trust_code: bool = False
) -> tuple[SearchConfig, TaskConfig]:
    """The search YAML at `path` (or of that name among the shipped ones).

    It may have a `base`, another search that it is laid over; its `detector`, `data` and criteria
    may be names, paths, or the settings themselves. An experiment to start from is read.

    Args:
        trust_code: run a detector that is Python and more than data.

    Raises:
        BadConfig: a missing file, an unknown key (with the nearest right one), a bad value.
        BadData: the data set's file names splits that cannot be.
        BadExperiment: one to start from that is none, or has nothing to start from.
    """
    values, file = read_complete("search", path, overrides, trust_code=trust_code)
    where = _named(file, overrides)
    search, task = split_config(values, where, beside=file.parent)
    _check_algorithm(search.algorithm, where)
    _check_rungs(search, task, where)
    return search, task


def _named(file: Path, overrides: Mapping[str, Any]) -> str:
    """What settings were read from, for messages."""
    return f"{file} with --set {' '.join(overrides)}" if overrides else str(file)


def _check_algorithm(algorithm: AlgorithmConfig, where: str) -> None:
    """Raise BadConfig for a setting that the algorithm would not look at.

    An experiment's config.yaml is a search as well, and has all of them, as they are by default.
    """
    for key, owner in OWN_SETTINGS.items():
        is_set = getattr(algorithm, key) != type(algorithm).model_fields[key].default
        if is_set and algorithm.type != owner:
            raise BadConfig(
                f"{where}:\n  algorithm.{key}: a setting of {owner}, which {algorithm.type} does "
                f"not have; leave it out, or choose {owner}."
            )


def _check_rungs(search: SearchConfig, task: TaskConfig, where: str) -> None:
    """Raise BadConfig where one of `rungs` and `fidelity` is given without the other."""
    example = "{images: 0.25, image_size: 0.67, val_images: 0.5}"
    if search.rungs is not None and task.fidelity is None:
        raise BadConfig(
            f"{where}:\n  rungs: given without fidelity, so its trials would cost as much as full "
            f"ones; expected what is cheaper about them as well, such as `fidelity: {example}`."
        )
    if task.fidelity is not None and search.rungs is None:
        raise BadConfig(
            f"{where}:\n  fidelity: given without rungs, so nothing would be trained at it; "
            "expected `rungs: {factor: 4}` as well."
        )


def experiment_of(path: str, overrides: Mapping[str, Any], *, trust_code: bool = False) -> Path:
    """The folder of the experiment that the search YAML at `path` is for; see `load_search`."""
    values, file = read_complete("search", path, overrides, trust_code=trust_code)
    search = {key: values[key] for key in SearchConfig.model_fields if key in values}
    config = parse(SearchConfig, search, _named(file, overrides))
    return config.storage / config.name


def split_config(
    values: Mapping[str, Any], where: str, beside: Path | None = None
) -> tuple[SearchConfig, TaskConfig]:
    """Split one mapping into the search's own settings and the trials'."""
    search_keys, task_keys = set(SearchConfig.model_fields), set(TaskConfig.model_fields)
    for key in values:
        if key not in search_keys | task_keys:
            known = sorted(search_keys | task_keys)
            raise BadConfig(f"{where}:\n  {key}: unknown key; {nearest(str(key), known)}")
    search = parse(SearchConfig, {k: v for k, v in values.items() if k in search_keys}, where)
    task = with_files({k: v for k, v in values.items() if k in task_keys}, beside)
    if is_experiment(start := task.pop("warm_start", None)):
        # Whatever else is wrong is said first.
        criterion = parse(TaskConfig, task, where).criterion
        start = start_from(start, criterion, where, beside)
    return search, parse(TaskConfig, {**task, "warm_start": start}, where)


def parse_overrides(items: list[str]) -> dict[str, Any]:
    """["algorithm.rounds=4"] as {"algorithm.rounds": 4}; values are YAML.

    Raises:
        BadConfig: an item without "=", or a value that is not YAML.
    """
    overrides = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise BadConfig(f"--set {item}: expected key=value, such as algorithm.rounds=4.")
        overrides[key] = load_yaml(text, f"--set {item}: the value")
    return overrides
