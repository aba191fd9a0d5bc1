"""Simulated trainings as a hint of the reward: computed once, and kept with the experiment."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loss.by_head import is_by_head, is_searched
from loss.criterion import Family
from loss.preflight import simulated
from search.run.threads import one_torch_thread
from search.space import Array

FILE = "simulated.jsonl"
Say = Callable[[str], None]
"""Tells the user a line about what takes long."""


def silent(line: str) -> None:
    """Nobody is told."""


_FEW, _MANY = 10, 100


class Simulations:
    """The AP of simulated trainings, by a criterion's settings.

    A search asks for hundreds of them, some twice: its screen, its model, a resume. So each is
    computed once and kept, a line each, where a resume finds it.

    Args:
        folder: where they are kept; made when there is something to keep. None: in memory alone.
        say: told in a line when there are many to compute, and how far that is.
    """

    def __init__(self, folder: Path | None = None, say: Say = silent) -> None:
        self._say = say
        self._computed = 0
        self._path = None if folder is None else folder / FILE
        self._known: dict[str, float] = dict(_read(self._path))

    def __call__(self, settings: Mapping[str, Any]) -> float:
        """AP in [0, 1] of a training with one criterion; 0 if its loss stops being finite."""
        text = json.dumps(settings, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        if key not in self._known:
            with one_torch_thread():
                self._known[key] = simulated(settings).ap
            self._keep(key)
            self._tell()
        return self._known[key]

    def _tell(self) -> None:
        self._computed += 1
        if self._computed == _FEW:
            self._say(
                "trying losses out in simulated trainings first, some seconds to a few minutes: "
                "what fails there is not worth a trial"
            )
        elif self._computed % _MANY == 0:
            self._say(f"  {self._computed} simulated trainings")

    def _keep(self, key: str) -> None:
        if self._path is None:
            return
        with suppress(OSError):  # what cannot be kept is computed again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")


class SimulatedReward:
    """theta [D] -> mean simulated AP of the searched heads (a search space's `hint`).

    Args:
        family: of the losses.
        criterion: the settings that `family` is of.
        simulations: where they are asked for.
    """

    def __init__(
        self, family: Family, criterion: Mapping[str, Any], simulations: Simulations
    ) -> None:
        self._family = family
        self._heads = [head for head, one in by_head(criterion).items() if is_searched(one)]
        self._simulations = simulations

    def __call__(self, theta: Array) -> float:
        settings = by_head(self._family.settings(theta.tolist()))
        values = [self._simulations(settings[head]) for head in self._heads]
        return sum(values) / len(values)


def by_head(settings: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """By head; "" where there is one for all."""
    return settings if is_by_head(settings) else {"": settings}


def _read(path: Path | None) -> list[tuple[str, float]]:
    """What was kept; a line that was cut short is left out."""
    found: list[tuple[str, float]] = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines() if path else []:
            with suppress(ValueError, TypeError):
                key, value = json.loads(line)
                found.append((str(key), float(value)))
    return found
