"""Trials of a fraction of a second, in place of trainings: what a soak tries faults on.

They run where trainings run, in a child of a trial's server under a Ray actor, and give what a
pure function makes of the trial's spec, so that the outcome of a whole search is known beforehand.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainers.trial import TrialResult, TrialSpec

SECONDS = "SHORT_TRIAL_SECONDS"
"""The environment variable that says how long a trial takes."""

BASELINE_SECONDS = "SHORT_TRIAL_BASELINE_SECONDS"
"""The same for the baseline, where that is to take longer."""


def preload() -> None:
    """Nothing: there is nothing to import."""


def run_trial(spec: TrialSpec, folder: Path, progress: Callable[[], None]) -> TrialResult:
    """Get on for a while, then give `result_of`; a line in `folder`/runs.txt counts the runs."""
    with (folder.parent / "runs.txt").open("a") as runs:
        runs.write(f"{folder.name}\n")
    print(f"a short trial with seed {spec.seed}", flush=True)
    seconds = os.environ.get(SECONDS, "0.3")
    if spec.theta is None:
        seconds = os.environ.get(BASELINE_SECONDS, seconds)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        progress()
        time.sleep(0.02)
    return result_of(spec)


def result_of(spec: TrialSpec) -> TrialResult:
    """What a trial gives: a smooth function of theta, noise from its seed, some that diverge."""
    luck = np.random.default_rng(spec.seed)
    if luck.random() < 0.05:
        return TrialResult(status="diverged", reward=0.0, error="Diverged: the loss is stuck at 1")
    theta = np.array(spec.theta or (0.0,))
    reward = 0.5 * math.exp(-float(np.mean((theta - 0.6) ** 2))) + 0.02 * luck.random()
    scores = {"AP": reward, "AP50": min(1.0, reward * 1.5)}
    on_test = "test" in spec.evaluate
    return TrialResult(
        status="ok",
        reward=reward,
        test_reward=reward if on_test else None,
        val=scores,
        test=scores if on_test else None,
        fingerprint=f"{spec.seed:08x}",
        iterations=1,
    )
