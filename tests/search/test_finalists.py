"""Who runs in the final race: the best guess, then samples by reward, or by what a model says."""

from types import SimpleNamespace

import numpy as np
import pytest

from search.finalists import finalists

GUESS = [0.5, 0.5]


def record(round, slot, reward, phase="search", status="ok", theta=None):
    theta = [round / 10, slot / 10] if theta is None else theta
    return {
        "phase": phase, "round": round, "slot": slot, "theta": theta, "reward": reward,
        "status": status, "label": f"round {round} slot {slot}",
    }  # fmt: skip


def algorithm(predict=lambda thetas: None, type="cem"):
    config = SimpleNamespace(type=type)
    return SimpleNamespace(best_guess=lambda: np.array(GUESS), predict=predict, config=config)


RECORDS = [
    record(0, 0, 0.1), record(0, 1, 0.3), record(0, 2, None, status="failed"),
    record(1, 0, 0.2), record(1, 1, 0.3), record(0, 0, 0.9, phase="start", theta=GUESS),
]  # fmt: skip


def labels(found):
    return [label for _, label in found]


def test_the_guess_then_the_best_samples_the_earlier_of_equals_first():
    found = finalists(algorithm(), RECORDS, 4)
    assert found[0] == (GUESS, "best guess")
    assert labels(found)[1:] == ["round 0 slot 1", "round 1 slot 1", "round 1 slot 0"]
    assert found[1][0] == [0.0, 0.1]


def test_a_model_is_heard_before_single_rewards():
    def by_first_coordinate(thetas):
        assert thetas.shape == (4, 2)
        return thetas[:, 0] - 0.01 * thetas[:, 1]

    found = finalists(algorithm(by_first_coordinate), RECORDS, 3)
    assert labels(found)[1:] == ["round 1 slot 0", "round 1 slot 1"]


def test_a_sample_that_is_the_guess_runs_once():
    found = finalists(algorithm(), [*RECORDS, record(2, 0, 0.8, theta=GUESS)], 3)
    assert labels(found) == ["best guess", "round 0 slot 1", "round 1 slot 1"]


@pytest.mark.parametrize("records", [[], [record(0, 0, None, status="failed")]])
def test_of_nothing_known_the_guess_is_left(records):
    assert finalists(algorithm(), records, 3) == [(GUESS, "best guess")]


def test_ppo2_calls_its_guess_by_its_name():
    assert labels(finalists(algorithm(type="ppo2"), [], 1)) == ["policy mean"]
