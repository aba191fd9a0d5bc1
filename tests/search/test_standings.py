import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search.history import load_history
from search.standings import confidence, difference, race_of, standings, verdict, winner

APS = st.lists(st.floats(0, 1), min_size=2, max_size=6)


def test_mean_and_spread_over_the_repeats(record):
    rows = standings([record("baseline", repeat=k, ap=ap) for k, ap in enumerate((0.1, 0.2, 0.3))])
    (row,) = rows
    assert (row.label, row.phase, row.candidate, row.n) == ("Focal + GIoU", "baseline", 0, 3)
    assert row.theta is None and row.control_points is None
    assert row.mean_test == pytest.approx(0.2)
    assert row.std_test == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert row.stderr_test == pytest.approx(0.1 / math.sqrt(3))
    assert row.mean_val == pytest.approx(0.2)
    assert row.statuses == {"ok": 3}


def test_the_order_is_baseline_start_candidates_and_search_is_left_out(experiment, searched):
    rows = standings(load_history(experiment(searched[::-1])))
    assert [(row.phase, row.candidate) for row in rows] == [
        ("baseline", 0), ("start", 0), ("final", 0), ("final", 1),
    ]  # fmt: skip
    assert rows[2].label == "policy mean"


def test_diverged_counts_as_zero_and_failed_is_left_out(record):
    rows = standings([
        record("final", 0, repeat=0, ap=0.4),
        record("final", 0, repeat=1, status="diverged", ap=None),
        record("final", 0, repeat=2, status="failed", ap=None),
    ])  # fmt: skip
    assert rows[0].n == 2
    assert rows[0].mean_test == pytest.approx(0.2)  # (0.4 + 0) / 2
    assert rows[0].mean_val == pytest.approx(0.2)
    assert rows[0].statuses == {"ok": 1, "diverged": 1, "failed": 1}


def test_one_repeat_has_no_spread_and_none_no_mean(record):
    one = standings([record("start")])[0]
    assert (one.n, one.std_test, one.stderr_test) == (1, None, None)
    none = standings([record("start", status="failed", ap=None)])[0]
    assert (none.n, none.mean_test, none.mean_val) == (0, None, None)


def test_the_winner_is_chosen_on_val_and_reported_on_test(record):
    first = [record("final", 0, repeat=k, ap=0.2) for k in range(2)]
    second = [record("final", 1, repeat=k, ap=0.1) for k in range(2)]
    for one in second:
        one["test_reward"] = 0.3
    best = winner(standings(first + second))
    assert (best.candidate, best.mean_val, best.mean_test) == (0, 0.2, 0.2)


def test_who_left_the_race_does_not_win_whatever_its_few_repeats_say(record):
    """Candidate 0 is clearly behind after 2 repeats; 1 and 2 go on, and end behind it."""
    scores = {0: (0.2, 0.201), 1: (0.3, 0.301, 0.01, 0.02), 2: (0.3, 0.302, 0.01, 0.021)}
    records = [
        record("final", one, repeat=k, ap=ap)
        for one, aps in scores.items()
        for k, ap in enumerate(aps)
    ]
    table = standings(records)
    assert [one.dropped for one in table] == [2, None, None]
    assert winner(table).candidate == 2
    race = race_of(records)
    assert race.dropped == {0: 2} and race.left == (1, 2)


def test_probabilities_are_those_of_the_race(record):
    records = [record("start", repeat=k, ap=0.1 + 0.01 * k) for k in range(3)]
    records += [
        record("final", one, repeat=k, ap=0.2 + 0.005 * one + 0.001 * (k == one))
        for one in range(3)
        for k in range(3)
    ]
    start, *finals = standings(records)
    assert start.probability is None and start.dropped is None
    assert [one.probability for one in finals] == race_of(records).probability.tolist()
    assert sum(one.probability for one in finals) == pytest.approx(1)
    assert confidence([start, *finals]) == finals[2].probability
    assert race_of(records[:3]) is None


def test_who_is_alone_is_not_called_the_best_of_all(record):
    table = standings([record("final", 0, repeat=k, ap=0.2 + 0.01 * k) for k in range(3)])
    assert winner(table).candidate == 0
    assert confidence(table) is None
    assert "candidates" not in verdict(table)


def test_the_race_of_an_experiment_is_that_of_its_configuration(experiment, record):
    records = [
        record("final", one, repeat=k, ap=0.3 - 0.1 * one + 0.001 * k)
        for one in range(2)
        for k in range(2)
    ]
    lasting = {"candidates": 2, "repeats": 2}
    dropping = {"candidates": 2, "repeats": 3}
    assert not race_of(load_history(experiment(records, final=lasting))).dropped
    assert race_of(load_history(experiment(records, final=dropping))).dropped == {1: 2}


def test_an_experiment_whose_configuration_was_spoilt_is_read_all_the_same(experiment, record):
    records = [record("final", 0, ap=0.3)]
    for final in ({"repeats": "many"}, [3], None):
        assert winner(standings(load_history(experiment(records, final=final)))) is not None


def test_only_candidates_win_and_the_first_of_equals(record):
    records = [record("baseline", ap=0.9), record("final", 0, ap=0.2), record("final", 1, ap=0.2)]
    assert winner(standings(records)).candidate == 0
    assert winner(standings(records[:1])) is None
    zero = [record("final", 0, status="diverged", ap=None)]
    assert winner(standings(zero)).mean_test == 0.0


@settings(max_examples=40)
@given(APS, APS)
def test_the_standard_error_is_welchs(one, other):
    """Against scipy: its t is the difference over the combined standard error."""

    def rows(phase, aps):
        return [
            {"phase": phase, "round": 0, "label": phase, "theta": None, "status": "ok",
             "repeat": k, "reward": ap, "test": {"AP": ap}} for k, ap in enumerate(aps)
        ]  # fmt: skip

    table = standings(rows("start", other) + rows("final", one))
    gap, error = difference(table[1], table[0])
    if min(table[0].std_test, table[1].std_test) > 1e-3:  # below, scipy's own sums lose digits
        t = stats.ttest_ind(one, other, equal_var=False).statistic
        assert gap / error == pytest.approx(t, rel=1e-6, abs=1e-9)


def race(record, won, start, baseline):
    records = [record("final", 0, repeat=k, ap=ap) for k, ap in enumerate(won)]
    records += [record("start", repeat=k, ap=ap) for k, ap in enumerate(start)]
    records += [record("baseline", repeat=k, ap=ap) for k, ap in enumerate(baseline)]
    return verdict(standings(records))


def test_verdict_says_clear_only_above_two_standard_errors(record):
    # Both spreads .01 over 2 repeats: the standard error of a difference is .01.
    a = 0.01 / math.sqrt(2)
    pair = lambda mean: (mean - a, mean + a)  # noqa: E731
    said = race(record, pair(0.300), pair(0.279), pair(0.281))
    assert "clearly beats the start of the search (0.2790, difference +0.0210" in said
    assert "is ahead of the baseline Focal + GIoU (0.2810, difference +0.0190" in said
    assert said.count(", standard error 0.0100") == 2
    assert "(mean of 2 repeats, standard error 0.0071)" in said  # .01 / sqrt 2
    assert "not clearly" in said
    assert "AP 0.3000" in said
    assert said.count(". ") == 0 and said.endswith(".")  # one sentence


def test_verdict_tells_small_differences_apart(record):
    said = race(record, (0.0012, 0.0014), (0.0009, 0.0011), ())
    assert "0.0013" in said  # (.0012 + .0014) / 2
    assert "difference +0.0003" in said


def test_verdict_does_not_hide_a_defeat(record):
    said = race(record, (0.10, 0.11), (0.30, 0.31), (0.10, 0.12))
    assert "did not beat the start of the search" in said and "clearly below it" in said
    assert "did not beat the baseline Focal + GIoU" in said and "no clear difference" in said
    assert "beats" not in said


def test_verdict_with_too_little_to_go_by(record):
    said = race(record, (0.2,), (0.1,), ())
    assert "is ahead of the start" in said and "too few repeats" in said
    assert "baseline" not in said
    assert "no result yet" in verdict(standings([record("start")]))
    assert "no result yet" in verdict([])
    failed = record("baseline", status="failed", ap=None)
    said = verdict(standings([record("final", 0), failed]))
    assert "cannot be compared with the baseline" in said


def test_equal_means_without_spread_are_no_victory(record):
    assert "did not beat" in race(record, (0.2, 0.2), (0.2, 0.2), ())


def test_the_verdict_says_how_sure_the_ranking_is(record):
    def said(gap, *more):
        records = [record("start", repeat=k, ap=0.1 + 0.002 * k) for k in range(3)]
        records += [
            record("final", one, repeat=k, ap=0.2 + gap * one + 0.001 * (-1) ** (one + k))
            for one in range(2)
            for k in range(3)
        ]
        table = standings([*records, *more])
        return verdict(table), confidence(table)

    clear, sure = said(0.05)
    three, _ = said(0.05, record("baseline", ap=0.1))
    assert sure > 0.99
    best = "the best of the 2 candidates with a probability above 99 %"
    assert f"it is {best}; and it clearly beats the start" in clear
    assert f"it is {best}; it clearly beats the start" in three
    assert three.count("; and it ") == 1
    close, unsure = said(0.0005)
    assert 0.5 < unsure < 0.8
    assert f"with a probability of {100 * unsure:.0f} %" in close


def test_the_race_is_run_on_the_reward_whatever_it_is(record):
    """Candidate 1 is better by the reward, though its AP is lower."""
    first = [record("final", 0, repeat=k, ap=0.3, reward=0.1, test_reward=0.4) for k in range(2)]
    second = [record("final", 1, repeat=k, ap=0.1, reward=0.2, test_reward=0.6) for k in range(2)]
    table = standings(first + second)
    assert winner(table).candidate == 1
    assert (table[1].mean_test, table[1].mean_val) == (pytest.approx(0.6), pytest.approx(0.2))
    said = verdict(table, "0.5 AP50 + 0.5 (1 - oLRP)")
    assert "candidate 1, reaches 0.5 AP50 + 0.5 (1 - oLRP) 0.6000 on the third split" in said
