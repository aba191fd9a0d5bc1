"""Rows of an ablation resolved into trials and searches, all of them checked before any is run."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paploss.errors import BadConfig, BadExperiment, UserError
from paploss.files import read_json, write_json
from paploss.strict import nearest, parse
from search.ablation import GroupConfig, RowConfig
from search.config import SearchConfig
from search.run.experiment import open_experiment
from search.run.load import load_search
from search.run.preflight import check_data, check_search, check_spec
from trainers.config import TaskConfig
from trainers.datasets.coco import DataConfig
from trainers.export import TrainingConfig, read_training_yaml
from trainers.reward import Reward
from trainers.trial import TrialSpec

_OF_SEARCH = {"name", "storage", "resources", "seed"}
"""What a group decides for its searches."""


@dataclass(frozen=True)
class Fixed:
    """A row that trains one loss; every run is `spec` with another seed."""

    row: RowConfig
    spec: TrialSpec


@dataclass(frozen=True)
class Searched:
    """A row that is a search.

    Attributes:
        retrain: what the loss that is found is then trained in, with its criterion in place of
            this one's; None if the search's own final race counts.
    """

    row: RowConfig
    config: SearchConfig
    task: TaskConfig
    retrain: TrialSpec | None

    @property
    def trials(self) -> int:
        return self.config.algorithm.rounds * self.config.algorithm.samples

    def found(self, criterion: Mapping[str, Any]) -> Fixed:
        """The row that trains the loss that the search has found."""
        assert self.retrain is not None
        return Fixed(self.row, self.retrain.model_copy(update={"criterion": dict(criterion)}))


Resolved = Fixed | Searched


def split_overrides(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides of the group's own keys, and those of every row's training or search.

    Raises:
        BadConfig: a key that none of them has; the message has the nearest.
    """
    group = set(GroupConfig.model_fields) - {"rows", "claims", "name"}
    below = _training_keys() | _search_keys()
    for key in overrides:
        first = key.split(".")[0]
        if first not in group | below:
            raise BadConfig(f"--set {key}: unknown key; {nearest(first, sorted(group | below))}")
    own = {key: value for key, value in overrides.items() if key.split(".")[0] in group}
    return own, {key: value for key, value in overrides.items() if key not in own}


def resolve(
    group: GroupConfig,
    rows: Iterable[RowConfig],
    storage: Path,
    overrides: Mapping[str, Any],
    *,
    trust_code: bool = False,
) -> list[Resolved]:
    """What each row trains or searches.

    Args:
        storage: the folder that a row's own folder is in.
        overrides: of trainings and searches; one that only the other kind has is left out.
        trust_code: run a detector that is Python and more than data.

    Raises:
        UserError: a file, key or value that is wrong, with the row's label.
    """
    found: list[Resolved] = []
    for row in rows:
        try:
            found.append(_resolve(group, row, storage, overrides, trust_code))
        except UserError as error:
            raise type(error)(f"row {row.label!r}: {error}") from error
    return found


def check_rows(rows: Iterable[Resolved]) -> Iterator[str]:
    """Look through the data and send a probe batch through every detector; lines to show.

    Raises:
        BadData: a data set that cannot be trained or scored on.
        BadConfig: a detector that cannot be built, a criterion that does not reach its training.
    """
    said: set[str] = set()
    seen: list[tuple[DataConfig, Reward]] = []
    for row in rows:
        try:
            for line in _check(row, seen):
                if line not in said:
                    said.add(line)
                    yield line
        except UserError as error:
            raise type(error)(f"row {row.row.label!r}: {error}") from error


def check_unchanged(row: Resolved, folder: Path) -> None:
    """See that what `folder` has of the row comes from the settings that it has now.

    Raises:
        BadExperiment: it does not; the message has the first setting that differs.
    """
    if isinstance(row, Fixed):
        if not (folder / "row.json").exists():
            return
        was = parse(TrialSpec, read_json(folder / "row.json"), str(folder / "row.json"))
        old, new = _plain(was), _plain(row.spec)
    else:
        if not (folder / "config.yaml").exists():
            return
        config, task = open_experiment(folder)
        # Where a folder lies, and what it runs on, is no part of what was searched.
        moved = {"storage": row.config.storage, "resources": row.config.resources}
        old = {**_plain(config.model_copy(update=moved)), **_plain(task)}
        new = {**_plain(row.config), **_plain(row.task)}
    difference = next(_differences(old, new), None)
    if difference is not None:
        raise BadExperiment(
            f"row {row.row.label!r} has results of other settings in {folder}: {difference}. They "
            "must not be mixed: give this run a place of its own with --out, or delete that folder "
            "to run the row again."
        )


def keep_settings(row: Fixed, folder: Path) -> None:
    """Write down what the runs in `folder` train, for `check_unchanged`."""
    write_json(folder / "row.json", _plain(row.spec))


def _resolve(
    group: GroupConfig,
    row: RowConfig,
    storage: Path,
    overrides: Mapping[str, Any],
    trust_code: bool,
) -> Resolved:
    training = row.training or group.training
    fixed = None
    if row.search is None or group.retrain:
        assert training is not None  # the group has seen to it
        own = _for(_training_keys(), row.set, overrides)
        config = read_training_yaml(training, own, trust_code=trust_code)
        fixed = _spec(config)
    if row.search is None:
        assert fixed is not None
        return Fixed(row, fixed)
    assert group.search is not None
    changed = _for(_search_keys(), row.search, overrides)
    search, task = load_search(group.search, changed, trust_code=trust_code)
    place = {
        "name": row.folder,
        "storage": storage,
        "seed": group.seed,
        "resources": group.resources,
    }
    return Searched(row, search.model_copy(update=place), task, fixed)


def _spec(config: TrainingConfig) -> TrialSpec:
    """The trial of a training; its seed, device and threads are filled in for each run."""
    return TrialSpec(
        detector=config.detector,
        data=config.data,
        criterion=config.criterion,
        schedule=config.schedule,
        reward=config.reward,
        seed=0,
        evaluate=("val", "test"),
    )


def _for(keys: set[str], own: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A row's own overrides, whatever they are, and those of `overrides` that it has keys for."""
    known = {key: value for key, value in overrides.items() if key.split(".")[0] in keys}
    return {**own, **known}


def _training_keys() -> set[str]:
    return set(TrainingConfig.model_fields) - {"seed", "found_by", "evaluate_every"}


def _search_keys() -> set[str]:
    return set(SearchConfig.model_fields) - _OF_SEARCH | set(TaskConfig.model_fields)


def _check(row: Resolved, seen: list[tuple[DataConfig, Reward]]) -> Iterator[str]:
    """Check a row; its data once for those in `seen`."""
    if isinstance(row, Searched):
        yield from _check_data(row.task.data, row.task.reward, seen)
        yield from check_search(row.config, row.task)
    spec = row.spec if isinstance(row, Fixed) else row.retrain
    if spec is not None:
        yield from _check_data(spec.data, spec.reward, seen)
        check_spec(spec)


def _check_data(
    data: DataConfig, reward: Reward, seen: list[tuple[DataConfig, Reward]]
) -> Iterator[str]:
    # COCO's annotations alone take seconds to read.
    if (data, reward) not in seen:
        seen.append((data, reward))
        yield from check_data(data, reward)


def _plain(model: Any) -> dict[str, Any]:
    values: dict[str, Any] = model.model_dump(mode="json")
    return values


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Each setting that differs: "schedule.epochs was 2, is 1 now"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(
                old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}".lstrip(".")
            )
    elif old != new:
        yield f"{path} was {_short(old)}, is {_short(new)} now"


_ABSENT = "(absent)"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
