"""Drawing: what is proposed goes through a screen before it is tried."""

from collections.abc import Callable, Sequence

from search.samples import Samples
from search.screen import Rejection, Screen
from search.seeds import Draw
from search.space import Array

Propose = Callable[[Sequence[Draw]], Array]
"""Thetas [n, D] by n draws; row i depends on the i-th draw alone."""


def draw_screened(
    draws: Sequence[Draw], propose: Propose, screen: Screen | None, attempts: int
) -> Samples:
    """One sample a draw that has passed `screen`; all first attempts are proposed at once.

    Args:
        attempts: how often one sample is drawn at most, >= 1; the last is taken as it is.
    """
    thetas = propose(draws)
    rejections: list[Rejection] = []
    for row, draw in enumerate(draws):
        if screen:
            thetas[row] = _screened(thetas[row], draw, propose, screen, attempts, rejections)
            screen.accepted(thetas[row])  # before the next one is looked at
    return Samples(thetas, tuple(rejections))


def _screened(
    theta: Array,
    draw: Draw,
    propose: Propose,
    screen: Screen,
    attempts: int,
    rejections: list[Rejection],
) -> Array:
    for attempt in range(attempts):
        if attempt:
            (theta,) = propose([Draw(draw.seed, draw.round, draw.slot, attempt)])
        verdict = screen(theta)
        if verdict is None:
            break
        waived = attempt + 1 == attempts
        rejections.append(Rejection.of(draw.slot, attempt, theta, verdict, waived))
    return theta
