"""What is taken from an earlier experiment: its best theta and the spread of its good ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from paploss.errors import BadExperiment
from search.curves import evaluate
from search.history import load_history
from search.warm_start import (
    CEILING,
    FLOOR,
    at_places,
    best_of,
    places_of,
    samples_of,
    spread_about,
)


def test_the_winner_of_the_race_is_where_to_start(experiment, searched):
    history = load_history(experiment(searched))
    best = best_of(history)
    # The second candidate of the fixture: .150 + .002 k, mean .152.
    final = next(r for r in searched if (r["phase"], r["round"]) == ("final", 1))
    assert (best.theta, best.label) == (tuple(final["theta"]), final["label"])
    assert best.details == "AP 0.1520 on val, the winner of its final race"


def test_the_third_split_has_no_say(experiment, record):
    records = [record("baseline")]
    for candidate, (val, test) in enumerate([(0.2, 0.5), (0.3, 0.1)]):
        records += [
            record("final", candidate, repeat=k, ap=val, test={"AP": test}) for k in range(3)
        ]
    assert best_of(load_history(experiment(records))).label == "candidate 1"


def test_before_the_race_the_best_sample_is(experiment, searched):
    search = [r for r in searched if r["phase"] == "search"]
    top = max((r for r in search if r["status"] == "ok"), key=lambda r: r["reward"])
    best = best_of(load_history(experiment(search)))
    assert best.theta == tuple(top["theta"]) and best.label == top["label"]
    # Of 24; one failed, one diverged.
    assert best.details.endswith("on val, the best of 22 samples so far")


def test_estimates_and_cheap_trials_are_no_samples(experiment, record):
    records = [
        record("search", 0, 0, ap=0.1),
        record("search", 0, 1, ap=0.9, status="stopped"),
        record("rung", 0, 2, ap=0.8),
    ]
    history = load_history(experiment(records))
    assert best_of(history).label == "round 0 slot 0"
    assert samples_of(history) == [tuple(records[0]["theta"])]


def test_a_trial_by_its_key(experiment, searched):
    history = load_history(experiment(searched))
    asked = next(r for r in searched if (r["phase"], r["round"], r["slot"]) == ("search", 1, 5))
    assert best_of(history, "search-001-05-0").theta == tuple(asked["theta"])
    assert best_of(history, "baseline-000-00-0").theta is None
    with pytest.raises(BadExperiment, match="has no trial 'search-009-05-0'; the names of its"):
        best_of(history, "search-009-05-0")


def test_nothing_to_start_from(experiment, record):
    history = load_history(experiment([record("baseline"), record("start")]))
    with pytest.raises(BadExperiment, match="no finished sample, so there is nothing"):
        best_of(history)


def test_the_spread_is_of_the_best_quarter_about_the_mean():
    samples = np.full((16, 3), 0.9)
    samples[:4] = [[0.5, 0.4, 0.5], [0.5, 0.6, 0.8], [0.5, 0.4, 0.5], [0.5, 0.6, 0.8]]
    # About .5: 0, then .1 always, then sqrt(.09 / 2) = .212; in [.05, .2].
    np.testing.assert_allclose(spread_about([0.5] * 3, samples), [FLOOR, 0.1, CEILING])
    # About another mean the same samples are as far as they are from it.
    np.testing.assert_allclose(spread_about([0.4, 0.5, 0.65], samples), [0.1, 0.1, 0.15])


def test_few_samples_tell_no_spread():
    np.testing.assert_array_equal(spread_about([0.5] * 2, np.full((15, 2), 0.5)), [CEILING] * 2)


CURVE = [[0, 0], [0.1, 0.5], [0.6, 0.7], [1, 1]]


def test_more_segments_leave_a_curve_as_it_is():
    # The longest is (.1, .5) to (.6, .7), of .54; then (0, 0) to (.1, .5), of .51.
    places = places_of(CURVE, 5)
    assert places.tolist() == [0, 0.5, 1, 1.5, 2, 3]
    expected = [[0, 0], [0.05, 0.25], [0.1, 0.5], [0.35, 0.6], [0.6, 0.7], [1, 1]]
    np.testing.assert_allclose(at_places(CURVE, places), expected)


def test_fewer_segments_leave_out_what_changes_the_least():
    # (.6, .7) is nearly on the line of its neighbours; (.1, .5) is not.
    assert places_of(CURVE, 2).tolist() == [0, 1, 3]


shares = arrays.arrays(float, (4, 2), elements=st.floats(0, 1))


@settings(max_examples=25, deadline=None)
@given(shares, st.integers(5, 12))
def test_any_curve_with_more_segments_is_the_same(theta, segments):
    inner = 1 - np.cumprod(1 - theta, axis=0)
    points = np.concatenate([[[0, 0]], inner, [[1, 1]]])
    finer = at_places(points, places_of(points, segments))
    assert finer.shape == (segments + 1, 2) and (np.diff(finer, axis=0) >= -1e-12).all()
    # Jumps aside, where a rounded x may be on either side.
    x = np.linspace(0, 1, 200)
    far = np.abs(x[:, None] - points[:, 0]).min(axis=1) > 1e-6
    np.testing.assert_allclose(
        evaluate(finer.tolist(), x[far]), evaluate(points.tolist(), x[far]), atol=1e-5
    )
