import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import null_space

from search import noise
from search.noise import Spread, probabilities, spread

SCORES = st.floats(0.05, 0.4)


def table(rows):
    """Scores by (row, repeat)."""
    return {(row, k): score for row, scores in enumerate(rows) for k, score in enumerate(scores)}


def chance_of_first(results, others):
    """P(candidate 0 beats 1) by another path: dense covariances, error contrasts, Student's cdf.

    Contrasts N'y of the fixed means are multivariate t with the one degree of freedom of the prior
    on the variance; the difference of two means, given all scores, is t with one more for each.
    """
    keys = [("c", *key) for key in results] + [("o", *key) for key in others]
    y = np.array([*results.values(), *others.values()])
    fixed = sorted({(kind, loss if kind == "o" else 0) for kind, loss, _ in keys})
    means = np.array([[(k, loss if k == "o" else 0) == f for f in fixed] for k, loss, _ in keys])
    same = np.array([[a[:2] == b[:2] and a[0] == "c" for a in keys] for b in keys], float)
    seed = np.array([[a[2] == b[2] for a in keys] for b in keys], float)
    contrasts, ahead = null_space(means.T.astype(float)), np.array([k == "c" for k, *_ in keys])
    sign = np.array([(1 - 2 * loss) * c for (_, loss, _), c in zip(keys, ahead, strict=True)])
    weights, chances = [], []
    for a in noise._BETWEEN:
        for b in noise._SEED:
            cov = np.eye(len(y)) + a**2 * same + b**2 * seed
            own = contrasts.T @ cov @ contrasts
            seen = contrasts.T @ y
            weights.append(
                stats.multivariate_t.logpdf(seen, shape=noise._LEAST**2 * own, df=1)
                if len(seen) > 1
                else stats.t.logpdf(seen[0], 1, scale=noise._LEAST * math.sqrt(own[0, 0]))
            )
            # u_0 - u_1 = a_0 - a_1, of prior variance 2 a^2, seen through the contrasts.
            to = a**2 * np.array([s if s else 0.0 for s in sign]) @ contrasts
            solved = np.linalg.solve(own, np.column_stack([seen, to]))
            df = 1 + len(seen)
            variance = (noise._LEAST**2 + seen @ solved[:, 0]) / df * (2 * a**2 - to @ solved[:, 1])
            chances.append(stats.t.cdf(to @ solved[:, 0] / math.sqrt(variance), df))
    return float(np.average(chances, weights=np.exp(np.array(weights) - max(weights))))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.lists(SCORES, min_size=2, max_size=4), min_size=2, max_size=2),
    st.lists(st.lists(SCORES, min_size=1, max_size=3), min_size=0, max_size=2),
)
def test_the_probability_is_that_of_the_model(rows, others):
    found = probabilities(table(rows), 2, table(others))
    error = 4 * math.sqrt(0.25 / noise.DRAWS)  # Monte Carlo, at most
    assert found[0] == pytest.approx(chance_of_first(table(rows), table(others)), abs=error)
    assert found.sum() == pytest.approx(1)


def test_shared_luck_of_seeds_cancels():
    """Equal means and spreads; only in the first table do the seeds explain the spread."""
    rows = [(0.20, 0.23, 0.26), (0.19, 0.22, 0.25)]
    mixed = [(0.20, 0.23, 0.26), (0.22, 0.25, 0.19)]
    assert probabilities(table(rows), 2)[0] > 0.85
    assert 0.5 < probabilities(table(mixed), 2)[0] < 0.75


def test_baseline_and_start_tell_how_large_luck_is():
    """Two repeats each: clear if others repeat well, not if they spread."""
    rows = table([(0.210, 0.209), (0.202, 0.201)])
    steady = table([(0.1, 0.101, 0.1), (0.15, 0.15, 0.151)])
    wild = table([(0.1, 0.16, 0.12), (0.15, 0.1, 0.17)])
    sure, unsure = probabilities(rows, 2, steady)[0], probabilities(rows, 2, wild)[0]
    assert sure > 0.95 and unsure < 0.8


def test_equal_scores_are_equally_likely():
    found = probabilities(table([(0.2, 0.21)] * 4), 4)
    assert found == pytest.approx([0.25] * 4, abs=0.02)


def test_a_loss_that_always_diverges_is_never_the_best():
    found = probabilities(table([(0.2, 0.21), (0.0, 0.0), (0.21, 0.2)]), 3)
    assert found[1] == 0
    assert found[0] == pytest.approx(found[2], abs=0.02)


def test_a_loss_that_sometimes_diverges_counts_by_its_share():
    """One of two repeats: the share is uniform on [0, 1], and to win it must exceed 2/3."""
    found = probabilities(table([(0.2000, 0.2001), (0.3, 0.0), (0.1, 0.1001)]), 3)
    assert found == pytest.approx([2 / 3, 1 / 3, 0], abs=0.02)


def test_a_failed_run_is_no_evidence():
    rows = table([(0.2, 0.21, 0.2), (0.19, 0.2, 0.21)])
    assert probabilities(rows | {(1, 3): None}, 2) == pytest.approx(probabilities(rows, 2))
    nothing = probabilities(rows | {(2, 0): None}, 3)
    assert nothing[2] == 0


def test_nothing_is_claimed_of_luck_that_was_never_seen():
    assert probabilities({}, 3) is None
    assert probabilities(table([(0.2,), (0.3,)]), 2) is None
    assert probabilities(table([(None, None)]), 1) is None
    assert probabilities(table([(0.2,), (0.3,)]), 2, table([(0.1, 0.11)])) is not None


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(SCORES, min_size=2, max_size=3), min_size=2, max_size=4), st.randoms())
def test_the_order_in_which_scores_came_changes_nothing(rows, random):
    keys = list(table(rows))
    random.shuffle(keys)
    shuffled = {key: table(rows)[key] for key in keys}
    assert (probabilities(shuffled, len(rows)) == probabilities(table(rows), len(rows))).all()


def test_spread_is_pooled_over_losses(record):
    records = [record("baseline", repeat=k, ap=ap) for k, ap in enumerate((0.1, 0.2, 0.3))]
    records += [record("start", repeat=k, ap=ap) for k, ap in enumerate((0.2, 0.2))]
    # Squares .01 + 0 + .01 and 0, on 2 + 1 degrees of freedom.
    assert spread(records) == Spread(pytest.approx(math.sqrt(0.02 / 3)), 5, 3)


def test_spread_leaves_out_what_did_not_train(record):
    records = [record("start", repeat=k, ap=0.1 + 0.01 * k) for k in range(2)]
    ended = [
        record("start", repeat=2, status="diverged", ap=None),
        record("start", repeat=3, status="failed", ap=None),
        record("search", ap=0.9),
        record("final", 0, ap=0.3),
    ]
    assert spread(records + ended) == Spread(pytest.approx(0.01 / math.sqrt(2)), 2, 1)
    assert spread(ended) is None


def test_the_winners_probability_is_as_often_right_as_it_says(monkeypatch):
    """Over 400 made-up races of 4 losses, 3 seeds, and two losses beside them.

    Where the spreads come from the model's own grid, whether winner i is the best is a toss of a
    coin of its probability p_i, so the number that are has mean sum p_i and variance
    sum p_i (1 - p_i). The same holds of those that are called likely and of the others.
    """
    monkeypatch.setattr(noise, "DRAWS", 2000)
    rng = np.random.default_rng(1)
    said, right = np.zeros(400), np.zeros(400)
    for trial in range(400):
        between, seeds = rng.choice(noise._BETWEEN), rng.choice(noise._SEED)
        means = 0.5 + 1e-3 * between * rng.standard_normal(6)
        luck = seeds * rng.standard_normal(3) + rng.standard_normal((6, 3))
        scores = means[:, None] + 1e-3 * luck
        found = probabilities(table(scores[:4]), 4, table(scores[4:]))
        said[trial] = found.max()
        right[trial] = found.argmax() == means[:4].argmax()
    for some in (said > 0, said > 0.8, said <= 0.8):
        p = said[some]
        assert abs(p.sum() - right[some].sum()) < 3 * math.sqrt((p * (1 - p)).sum())
    assert 0.2 < np.mean(said > 0.8) < 0.8  # both kinds are there
