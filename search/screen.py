"""Screen: decides whether a theta is worth a trial, before one is spent on it."""

from dataclasses import dataclass
from typing import Any, Protocol

from search.space import Array


class Screen(Protocol):
    """What a search asks of every sample that it has drawn.

    Its answer is a function of theta and of the samples that it was told of before, nothing else:
    a search that is resumed asks again and has to hear the same.
    """

    def __call__(self, theta: Array) -> str | None:
        """None: worth a trial. Else "stage: reason" in one line; tables count by stage.

        Args:
            theta: [D] in [0, 1].
        """

    def accepted(self, theta: Array) -> None:
        """Told of what is tried: the start, then every sample, in the order of rounds and slots."""


@dataclass(frozen=True)
class Rejection:
    """A sample that was drawn and not tried.

    Attributes:
        slot: the place that it was drawn for.
        attempt: which draw of that place it was, from 0.
        theta: [D].
        stage: of the screen, such as "simulation".
        reason: in one line.
        waived: whether it was tried all the same, because it was the last attempt.
    """

    slot: int
    attempt: int
    theta: tuple[float, ...]
    stage: str
    reason: str
    waived: bool = False

    @staticmethod
    def of(slot: int, attempt: int, theta: Array, verdict: str, waived: bool) -> "Rejection":
        stage, _, reason = verdict.partition(": ")
        return Rejection(slot, attempt, tuple(theta.tolist()), stage, reason or stage, waived)

    @staticmethod
    def read(values: dict[str, Any]) -> "Rejection":
        """From what `dataclasses.asdict` made of one, by way of JSON."""
        return Rejection(**{**values, "theta": tuple(values["theta"])})
