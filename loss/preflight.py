"""Whether a criterion is worth a trial: what can be seen in half a second and without a GPU.

Two stages, the cheap one first. "gradient": how the criterion pulls at outputs of a head, early,
in the middle and late in a training (`loss.gradient_checks`). "simulation": a tiny head is trained
with it, and its AP has to rise (`loss.simulation`).

Every threshold is in `Limits`, with what it was set by: benchmarks/preflight.py and its results.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from loss.criterion import Criterion, build_criterion
from loss.gradient_checks import STATES, STEP, Pull, pull
from loss.scene import Scene, make_scene
from loss.simulation import Simulation, simulate


@dataclass(frozen=True)
class Limits:
    """What a criterion has to keep to.

    Set on 128 real trials (random_s0 and ppo2_s0 of benchmarks/data) alone, with room beyond the
    worst of the 32 "good" ones, whose reward was above the start's; "bad" are the 50 with less than
    a quarter of it. What that is worth on other searches: benchmarks/results/preflight.md.

    Attributes:
        wrong_boxes: share of the pull at the boxes that leads away from the objects, early. Good:
            at most .78; bad: half of them above .76.
        box_rise: of the loss, as a share of it, when boxes go `STEP` of the way, early or in the
            middle. Good: at most .001; CSE-AutoLoss-B .002; bad: a quarter above .0075.
        wrong_scores: share of the pull at positives that lowers their scores, early or in the
            middle; later on a loss that ranks has reason to (.5). All trials: below .15. It is
            there for losses that are not of this family.
        score_rise: of the loss, as a share of it, when positives' scores are raised by `STEP`,
            early. Good: at most .003; aLRP .01; bad: a quarter above .022. Not later on, when a
            loss whose denominator is blocked may rise by .08 (aLRP), and trains.
        dead: a gradient below it, summed over the batch, is none.
        exploding: one above it is no use to an optimiser; all trials: below 400.
        ap: of the simulation. Good: at least .117; bad: nine in ten below .05.
    """

    wrong_boxes: float = 0.9
    box_rise: float = 0.01
    wrong_scores: float = 0.6
    score_rise: float = 0.05
    dead: float = 1e-7
    exploding: float = 1e4
    ap: float = 0.05


LIMITS = Limits()


def examine(settings: Mapping[str, Any], limits: Limits = LIMITS) -> str | None:
    """Why no trial need be spent on a criterion, as "stage: reason"; None: it is worth one.

    Args:
        settings: of one criterion, see `build_criterion`.

    Raises:
        ValueError: settings of no criterion.
    """
    return examine_criterion(build_criterion(settings), limits)


def examine_criterion(criterion: Criterion, limits: Limits = LIMITS) -> str | None:
    """`examine`, of a criterion that is built."""
    verdict = gradient_verdict(criterion, limits)
    if verdict is not None:
        return verdict
    simulation = simulate(criterion, standard_scene())
    if not simulation.finite:
        return "simulation: the loss or its gradient stops being finite"
    return simulation_verdict(simulation.ap, limits)


def gradient_verdict(criterion: Criterion, limits: Limits = LIMITS) -> str | None:
    """The first stage alone."""
    scene = standard_scene()
    pulls = ((name, pull(criterion, scene, state)) for name, state in STATES.items())
    for name, found in pulls:
        for reason in gradient_faults({name: found}, limits):
            return f"gradient: {reason}"
    return None


def simulation_verdict(ap: float, limits: Limits = LIMITS) -> str | None:
    """The second stage alone, of a criterion whose `simulated` AP is known."""
    if ap >= limits.ap:
        return None
    return f"simulation: AP {ap:.3f} on made-up images; at least {limits.ap:g} expected"


def simulated(settings: Mapping[str, Any]) -> Simulation:
    """What `examine` simulates: its `ap` ranks criteria nearly as real trials do.

    Raises:
        ValueError: settings of no criterion.
    """
    return simulate(build_criterion(settings), standard_scene())


@cache
def standard_scene() -> Scene:
    """40 images to learn and 64 to measure."""
    return make_scene(104)


def gradient_faults(pulls: Mapping[str, Pull], limits: Limits = LIMITS) -> Iterator[str]:
    """What is wrong with a criterion's pulls, by the name of the state in `STATES`, a line each."""
    for state, found in pulls.items():
        for reason in _faults(state, found, limits):
            yield f"{reason} ({state} in a training)"


def _faults(state: str, found: Pull, limits: Limits) -> Iterator[str]:
    """What is wrong with a pull, one line each."""
    if not found.finite:
        yield "the loss or its gradient is not finite"
        return
    pulls = {"scores": found.positives + found.negatives, "boxes": found.boxes}
    for what, size in pulls.items():
        if size > limits.exploding:
            yield f"the gradient of the {what} explodes: {size:.1e}, summed over the batch"
        if size < limits.dead and state == "early":
            yield f"the {what} have no gradient"
    if state == "late":
        return
    if found.wrong_scores > limits.wrong_scores:
        yield f"{found.wrong_scores:.0%} of the pull at positives lowers their scores"
    rise = _relative(found.box_rise, found.loss)
    if rise > limits.box_rise:
        yield f"boxes that go {STEP:.0%} of the way to their objects raise the loss by {rise:.1%}"
    if state != "early":
        return
    if found.wrong_boxes > limits.wrong_boxes:
        yield f"{found.wrong_boxes:.0%} of the pull at boxes leads away from their objects"
    rise = _relative(found.score_rise, found.loss)
    if rise > limits.score_rise:
        yield f"positives' logits that rise by {STEP:g} raise the loss by {rise:.1%}"


def _relative(rise: float, loss: float) -> float:
    """As a share of the loss; against 1 where that is less, since a loss may be 0 or negative."""
    return rise / max(abs(loss), 1.0) if math.isfinite(rise) else math.inf
