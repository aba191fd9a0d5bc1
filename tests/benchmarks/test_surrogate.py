"""The model of finished trials that searches are compared on."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsRegressor

from benchmarks.surrogate import MODELS, Surrogate, curve_values, features, noise_of
from benchmarks.surrogate_error import held_out
from loss.by_head import family_of

FAMILY = family_of({"type": "parameterized_ap", "segments": 5})


def random_thetas(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 41))


def table(count: int = 60) -> pd.DataFrame:
    """Trials of an objective that is known: the value of H2 at 1/2, times .3."""
    thetas = random_thetas(count)
    rewards = 0.3 * curve_values(thetas, np.array([0.5]))[:, 0, 0]
    columns = {f"theta_{n}": thetas[:, n] for n in range(41)}
    source = np.where(np.arange(count) % 2, "a", "b")
    return pd.DataFrame({"source": source, "phase": "search", "reward": rewards, **columns})


def test_curves_are_those_that_a_trial_trains_with():
    grid, thetas = np.linspace(0.05, 0.95, 7), random_thetas(3)
    for theta, ours in zip(thetas, curve_values(thetas, grid), strict=True):
        points = FAMILY.settings(theta.tolist())["control_points"]
        assert list(points) == ["H2", "I2", "I3", "I1", "H1"]
        theirs = [np.interp(grid, *np.transpose(curve)) for curve in points.values()]
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_features_are_finite_where_curves_have_jumps():
    corners = np.stack([np.zeros(41), np.ones(41), np.array(FAMILY.start)])
    assert np.isfinite(features(corners)).all()


def test_it_finds_what_the_rewards_depend_on():
    known, unseen = table(), random_thetas(100)[60:]
    surrogate = Surrogate(known, "trees")
    truth = 0.3 * curve_values(unseen, np.array([0.5]))[:, 0, 0]
    assert np.corrcoef(surrogate(unseen), truth)[0, 1] > 0.9
    np.testing.assert_array_equal(surrogate(unseen), Surrogate(known, "trees")(unseen))


@pytest.mark.parametrize("by_experiment", [False, True])
def test_a_held_out_prediction_has_not_seen_its_theta(monkeypatch, by_experiment):
    # Two trials of each theta, one in each experiment, with rewards that nothing tells: a model
    # that recalls the nearest one would know both if it saw one of them.
    monkeypatch.setitem(MODELS, "nearest", lambda: KNeighborsRegressor(1))
    known = table(24)
    known["reward"] = np.random.default_rng(1).random(24)
    twice = pd.concat([known.assign(source="a"), known.assign(source="b")], ignore_index=True)
    if by_experiment:  # a third one, or there is nothing left to learn from
        other = table(48).iloc[24:].assign(source="c")
        twice = pd.concat([twice, other], ignore_index=True)
    predicted = held_out(twice, by_experiment, models=("nearest",))["nearest"]
    assert np.corrcoef(predicted[:48], twice["reward"][:48])[0, 1] < 0.5


def test_noise_is_measured_on_fresh_seeds_of_thetas_that_learn():
    rng = np.random.default_rng(0)
    rows = [
        {"phase": "final", "reward": level + spread * luck, "theta_0": n, "seed": seed}
        for n, (level, spread) in enumerate([(0.2, 0.02)] * 150 + [(0.01, 0.001)] * 50)
        for seed, luck in enumerate(rng.standard_normal(3))
    ]
    # Chosen for its reward: no measure.
    rows.append({"phase": "search", "reward": 0.9, "theta_0": 0, "seed": 9})
    noise = noise_of(pd.DataFrame(rows))
    assert noise.trials == 450 and noise.thetas == 150
    # From half the median of thetas' means on it is one; below, it falls with the reward.
    np.testing.assert_allclose(noise(np.array([0.05, 0.1, 0.3])), [0.01, 0.02, 0.02], rtol=0.1)
    assert noise(np.array([0.0]))[0] == 0.003


def test_one_repeated_theta_gives_one_spread_for_all():
    # Of .01, .02 ... .07: the squares of 1, 2, 3 twice over 6 is 14 / 3.
    values = [{"reward": n / 100, "seed": n, "theta_0": 0.2, "phase": "start"} for n in range(1, 8)]
    rows = pd.DataFrame(values + values)  # two searches of one seed: nothing new
    noise = noise_of(rows)
    np.testing.assert_allclose(noise(np.array([0.02, 0.3])), 0.01 * (14 / 3) ** 0.5)
    assert noise.trials == 7
    assert noise_of(rows.iloc[:3]).sd == 0.015  # two degrees of freedom say next to nothing
