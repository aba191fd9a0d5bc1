"""A search that starts from an earlier one: what that one has found, in this one's coordinates.

The earlier experiment is read once, when the new one is made, and never needed again.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loss.by_head import FamilyByHead, family_of, is_by_head, is_searched
from loss.criterion import Family
from paploss.errors import BadConfig
from paploss.strict import StrictModel, parse
from search.config import SearchConfig
from search.curves import evaluate
from search.history import History, load_history
from search.warm_start import at_places, best_of, places_of, samples_of, spread_about
from trainers.config import TaskConfig

_SEEN = 0.005
"""Curves that are no farther apart are not called different."""

Settings = Mapping[str, Any]


class _FromExperiment(StrictModel):
    """`warm_start: {experiment: experiments/shapes}`."""

    experiment: Path
    trial: str | None = None
    spread: float | None = None


def is_experiment(start: Any) -> bool:
    """Whether a `warm_start` names an experiment."""
    return isinstance(start, Mapping) and "experiment" in start


def start_from(
    start: Settings, criterion: Settings, where: str, beside: Path | None = None
) -> dict[str, Any]:
    """What a `WarmStart` is made of: the best of an experiment, and the spread of its good samples.

    Args:
        start: `warm_start` as it is written.
        criterion: the family that the new search chooses from.
        where: what is read, for messages.
        beside: a folder that a relative path may be from, after the current one.

    Raises:
        BadConfig: an unknown key, or a criterion that the experiment's losses do not fit.
        BadExperiment: no experiment, or one that has nothing to start from.
    """
    asked = parse(_FromExperiment, start, f"{where}, warm_start")
    history = load_history(_found(asked.experiment, beside))
    best = best_of(history, asked.trial)
    try:
        new, old = family_of(criterion), family_of(history.config.get("criterion", {}))
        found = history.config["baseline"] if best.theta is None else old.settings(best.theta)
        fit = _Fit(found, new)
        theta = new.theta(fit(found))
        if asked.spread is not None:
            spread: Any = asked.spread
        else:
            samples = _translated(old, new, fit, samples_of(history))
            spread = np.round(spread_about(theta, samples), 4).tolist()
    except (ValueError, TypeError, KeyError) as error:
        raise BadConfig(
            f"{where}: this search cannot start from {asked.experiment}, whose losses do not fit "
            f"its criterion: {error}"
        ) from error
    return {
        "criterion": new.settings(theta),
        "spread": spread,
        "source": f"{history.path.name}, {best.label}",
        "details": "; ".join([best.details, _trained(history), *fit.notes]),
    }


def start_line(config: SearchConfig, task: TaskConfig) -> str:
    """Where a search starts, and how wide, in one line."""
    details = task.warm_start.details if task.warm_start else None
    begin = f"starts from {task.start_label.removeprefix('start: ')}"
    return f"{begin}{f' ({details})' if details else ''}; {_width(config, task.spread)}"


def _width(config: SearchConfig, spread: Sequence[float] | None) -> str:
    """How far the first samples lie about the start, in words."""
    if config.algorithm.type == "random":
        return "samples come from everywhere all the same"
    sigma = config.algorithm.sigma
    spread = spread or (None if sigma is None else [sigma])
    if spread is None:
        return "as wide as its algorithm begins"
    low, high, middle = min(spread), max(spread), statistics.median(spread)
    if low == high:
        return f"spread {low:g} in every coordinate"
    return f"spread {low:.2f} to {high:.2f} by coordinate, {middle:.2f} in the middle"


class _Fit:
    """Gives the criteria of one family the heads and the numbers of segments of another.

    Args:
        found: settings of the theta to start from: where points are left out or put in is decided
            by its curves, for all thetas alike.
        new: the family to fit them to.

    Attributes:
        notes: what has changed on the way, in words.
    """

    def __init__(self, found: Settings, new: Family) -> None:
        self.notes: list[str] = []
        self._heads, self._names = _searched_heads(new), new.names
        like = _by_head(new.settings(new.start), self._heads)
        self._places: dict[tuple[str, str], Any] = {}
        for head, section in _by_head(found, self._heads).items():
            if section.get("type") != like[head]["type"]:
                raise ValueError(
                    f"its criterion is {section.get('type')!r}, this one's {like[head]['type']!r}."
                )
            self._plan(head, section, like[head])

    def __call__(self, settings: Settings) -> dict[str, Any]:
        fitted = {
            head: self._fitted(head, section)
            for head, section in _by_head(settings, self._heads).items()
        }
        return fitted if self._heads else fitted[""]

    def _plan(self, head: str, section: Settings, like: Settings) -> None:
        before, worst = 0, 0.0
        wanted = like.get("control_points", {})
        for name, points in section.get("control_points", {}).items():
            if name not in wanted or len(points) == len(wanted[name]):
                continue
            places = places_of(points, len(wanted[name]) - 1)
            self._places[head, name] = places
            x, before = np.linspace(0, 1, 1001), len(points) - 1
            change = np.abs(evaluate(points, x) - evaluate(at_places(points, places).tolist(), x))
            worst = max(worst, float(change.max()))
        if before:
            after = len(next(iter(wanted.values()))) - 1
            how = f"at most {worst:.2f} off" if worst > _SEEN else "unchanged"
            whose = f"{head}: " if head else ""
            self.notes.append(f"{whose}{before} segments as {after}, the curves {how}")
        had, fixed = section.get("gradient_scale"), like.get("gradient_scale")
        if f"{head}.gradient_scale".lstrip(".") not in self._names and had != fixed:
            whose = f"{head}: " if head else ""
            self.notes.append(f"{whose}gradient scale {had:.3g} left out: it is {fixed:.3g}")

    def _fitted(self, head: str, section: Settings) -> dict[str, Any]:
        curves = {
            name: at_places(points, self._places[head, name]).tolist()
            if (head, name) in self._places
            else points
            for name, points in section.get("control_points", {}).items()
        }
        return {**section, "control_points": curves} if curves else dict(section)


def _searched_heads(family: Family) -> tuple[str, ...]:
    """Heads that have a part of theta; none where one criterion is for all."""
    if not isinstance(family, FamilyByHead):
        return ()
    return tuple(head for head, one in family.settings_by_head.items() if is_searched(one))


def _by_head(settings: Settings, heads: Sequence[str]) -> dict[str, Settings]:
    """The settings of each of `heads`; of "" where there are none. One section is for all."""
    given = dict(settings) if is_by_head(settings) else {"": settings}
    if len(given) == 1:
        (only,) = given.values()
        return dict.fromkeys(heads or ("",), only)
    missing = set(heads) - given.keys()
    if missing or not heads:
        wanted = " and ".join(heads) or "all heads alike"
        raise ValueError(f"it has a criterion for {' and '.join(given)}, this one for {wanted}.")
    return {head: given[head] for head in heads}


def _translated(
    old: Family, new: Family, fit: _Fit, thetas: Sequence[Sequence[float]]
) -> list[Sequence[float]]:
    """`thetas` of one family in the coordinates of another."""
    if old.names == new.names:
        return list(thetas)
    return [new.theta(fit(old.settings(theta))) for theta in thetas]


def _found(path: Path, beside: Path | None) -> Path:
    """From the current folder, as `storage` is, or else from the folder of the file."""
    other = None if beside is None else beside / path
    return other if other is not None and not path.exists() and other.exists() else path


def _trained(history: History) -> str:
    """The detector and the data of an experiment."""
    sections = (history.config.get(key) for key in ("detector", "data"))
    names = [one.get("name") for one in sections if isinstance(one, Mapping)]
    return " on ".join(str(name) for name in names if name) or "of an unknown detector"
