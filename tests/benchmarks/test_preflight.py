"""What benchmarks/preflight.py counts, on trials that are made up."""

from dataclasses import asdict
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from benchmarks.preflight import judged
from benchmarks.preflight_report import best_of, summary
from loss.gradient_checks import STATES, Pull

FINE = Pull(
    finite=True,
    loss=1.0,
    positives=1.0,
    negatives=1.0,
    boxes=1.0,
    wrong_scores=0.0,
    wrong_boxes=0.0,
    score_rise=-0.01,
    box_rise=-0.01,
)


def trials(rewards, aps, wrong_boxes):
    """One row a trial; its early pull at the boxes is wrong to some part."""
    pulls = {f"{state}.{key}": value for state in STATES for key, value in asdict(FINE).items()}
    table = pd.DataFrame([{**pulls, "finite": True, "seconds": 0.3} for _ in rewards])
    return table.assign(reward=rewards, ap=aps, **{"early.wrong_boxes": wrong_boxes})


def test_stages_and_counts():
    table = judged(
        trials([0.0, 0.01, 0.05, 0.15, 0.25, 0.3], [0, 0, 0.1, 0.15, 0, 0.3], [1, 0, 0, 0, 0, 0])
    )
    assert list(table["stage"]) == ["gradient", "simulation", "", "", "simulation", ""]
    found = summary(table, start=0.2)
    assert found["bad (reward below 0.050) rejected"] == "2 of 2"
    assert found["bad rejected by the gradient stage alone"] == "1 of 2"
    assert found["bad rejected by the simulation alone"] == "2 of 2"
    assert found["good (above the start's 0.200) lost"] == "1 of 2"
    assert found["mean reward of those that pass"] == "0.167"


def test_best_of_is_the_mean_over_all_choices():
    rng = np.random.default_rng(0)
    table = trials(rng.random(10), rng.random(10), 0.0)
    chosen = [
        table.loc[table.loc[list(k), "ap"].idxmax(), "reward"] for k in combinations(range(10), 8)
    ]
    assert best_of(table) == pytest.approx(np.mean(chosen))


def test_a_pull_that_is_not_finite_is_rejected_after_a_round_trip(tmp_path):
    table = trials([0.0], [0.0], 0.0).assign(**{"early.finite": False, "early.loss": np.nan})
    table.to_csv(tmp_path / "rows.csv", index=False)
    assert list(judged(pd.read_csv(tmp_path / "rows.csv"))["stage"]) == ["gradient"]
