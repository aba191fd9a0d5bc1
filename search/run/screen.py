"""The screen that a search asks before a trial: what a theta's losses look like without a detector.

The search does not know what theta stands for, and losses know no search; here they meet.
"""

from collections.abc import Mapping
from typing import Any

from loss.by_head import family_of, is_searched, sections
from loss.criterion import Family, build_criterion
from loss.preflight import gradient_verdict, simulation_verdict
from search.config import SearchConfig
from search.run.hint import Say, Simulations, by_head, silent
from search.screen import Screen
from search.space import Array
from trainers.config import TaskConfig


def build_screen(
    config: SearchConfig, task: TaskConfig, simulations: Simulations, say: Say = silent
) -> Screen | None:
    """The screen of a search; None if its `preflight` is off.

    Args:
        simulations: where simulated trainings are asked for; what the search's model has asked for
            is known there.
        say: told in a line of how far a long look at formulas is.
    """
    if not config.preflight.enabled:
        return None
    family = family_of(task.criterion)
    kinds = {section["type"] for section in sections(task.criterion)}
    screens: list[Screen] = []
    if "formula" in kinds:
        from loss.formula_filters import FormulaScreen

        screens.append(Told(FormulaScreen(family), say))
    if kinds - {"formula"}:
        screens.append(LossScreen(family, task.criterion, simulations))
    return screens[0] if len(screens) == 1 else Screens(tuple(screens))


class LossScreen:
    """`loss.preflight.examine`, for the theta of every searched head (a `Screen`).

    It looks at one theta at a time and remembers nothing.

    Args:
        family: of the losses.
        criterion: the settings that `family` is of; heads whose criterion is fixed, and formulas,
            which have filters of their own, are not looked at.
        simulations: where simulated trainings are asked for.
    """

    def __init__(
        self, family: Family, criterion: Mapping[str, Any], simulations: Simulations
    ) -> None:
        self._family = family
        self._heads = by_head(criterion)
        self._simulations = simulations

    def __call__(self, theta: Array) -> str | None:
        settings = by_head(self._family.settings(theta.tolist()))
        for head, given in self._heads.items():
            if given["type"] == "formula" or not is_searched(given):
                continue
            verdict = gradient_verdict(build_criterion(settings[head]))
            if verdict is None:
                verdict = simulation_verdict(self._simulations(settings[head]))
            if verdict is not None:
                return f"{verdict} ({head})" if head else verdict
        return None

    def accepted(self, theta: Array) -> None:
        """Nothing to remember."""


class Told:
    """A screen that may take minutes for a round, and says how far it is (a `Screen`).

    Of formulas nearly all are rejected, so a round of ten can mean a thousand looks.
    """

    _OFTEN = 250

    def __init__(self, screen: Screen, say: Say) -> None:
        self._screen = screen
        self._say = say
        self._looks = self._rejected = 0

    def __call__(self, theta: Array) -> str | None:
        verdict = self._screen(theta)
        self._looks += 1
        self._rejected += verdict is not None
        if self._looks % self._OFTEN == 0:
            self._say(
                f"  {self._looks} formulas looked at before a trial, {self._rejected} rejected"
            )
        return verdict

    def accepted(self, theta: Array) -> None:
        self._screen.accepted(theta)


class Screens:
    """Screens one after the other: the first that rejects a theta is heard (a `Screen`)."""

    def __init__(self, screens: tuple[Screen, ...]) -> None:
        self._screens = screens

    def __call__(self, theta: Array) -> str | None:
        verdicts = (screen(theta) for screen in self._screens)
        return next((verdict for verdict in verdicts if verdict is not None), None)

    def accepted(self, theta: Array) -> None:
        for screen in self._screens:
            screen.accepted(theta)
