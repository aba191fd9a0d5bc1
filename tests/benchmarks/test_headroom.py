"""What a model of trials promises, where the truth is known."""

import numpy as np
import pytest

from benchmarks.headroom import Model, Promise, held_out, promises, table_of, told
from benchmarks.race_trials import Loss, Runs
from benchmarks.surrogate import curve_values
from loss.by_head import family_of

# Made-up rewards have less noise than the model's kernel allows for.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FAMILY = {"type": "parameterized_ap", "segments": 5}
NAMES = family_of(FAMILY).names


def truth(thetas: np.ndarray) -> np.ndarray:
    """.2 and a tenth of the value of H2 at 1/2."""
    return 0.2 + 0.1 * curve_values(thetas, np.array([0.5]))[:, 0, 0]


@pytest.fixture(scope="module")
def tried() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.2, 0.8, (120, len(NAMES)))


@pytest.fixture(scope="module")
def model(tried) -> Model:
    noise = 0.002 * np.random.default_rng(1).standard_normal(len(tried))
    return Model(tried, truth(tried) + noise)


def test_the_model_knows_what_rewards_depend_on(model, tried):
    unseen = np.random.default_rng(2).uniform(0.2, 0.8, (60, len(NAMES)))
    assert np.corrcoef(model.mean(unseen), truth(unseen))[0, 1] > 0.9
    assert np.all(model.less_doubt(unseen) <= model.mean(unseen))


def test_expectations_are_of_thetas_that_were_not_seen():
    # Rewards that nothing tells, each theta twice: who saw one of the two would know the other.
    rng = np.random.default_rng(3)
    thetas, rewards = rng.random((30, len(NAMES))), rng.normal(0.2, 0.03, 30)
    twice = np.concatenate([thetas, thetas]), np.concatenate([rewards, rewards])
    assert np.corrcoef(held_out(*twice), twice[1])[0, 1] < 0.5


def test_it_tells_what_came_where_most_was_expected():
    expected = np.arange(1, 21) / 100
    rewards = expected + 0.01 * (expected > 0.185)  # of the highest two, .19 and .20
    text = told(expected, rewards)
    assert "Spearman 1.00" in text
    assert text.endswith("it expects 0.195, and 0.205 came.")


def test_it_promises_more_than_was_tried_where_there_is_more(model, tried):
    best, of_all, careful = promises(model, tried, NAMES)
    assert best.theta.tolist() in tried.tolist()
    assert best.expected == pytest.approx(model.mean(tried).max())
    assert of_all.expected > best.expected
    assert truth(np.stack([of_all.theta, careful.theta])).min() > truth(tried).max()
    assert np.all((of_all.theta >= 0) & (of_all.theta <= 1))


def test_the_table_sets_what_was_expected_beside_what_came(tmp_path):
    runs = Runs(tmp_path / "runs.jsonl")
    loss = Loss(FAMILY, (0.5,) * len(NAMES), "best")
    for repeat in range(2, 7):
        score = {"reward": 0.25, "test_reward": 0.2 + 0.01 * repeat, "status": "ok"}
        runs.add(loss, repeat, score)
    text = table_of([Promise("best", np.zeros(1), 0.275)], [loss], runs)
    # The standard deviation of .22, .23, .24, .25, .26 is .01 times the root of 10 / 4.
    assert text.splitlines()[-1] == "| best | 0.275 | 0.250 | 0.240 ± 0.016 | 5 |"
