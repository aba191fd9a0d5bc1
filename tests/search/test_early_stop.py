"""Thresholds for early scores: what proves one, and what counts as evidence."""

import numpy as np
import pytest
from scipy import stats

from search.config import EarlyStopConfig
from search.early_stop import Proof, Rule, early_stop, is_exempt, learn, may_lose, rule_of

PROOF = Proof()


def pairs(count, seed=0, noise=0.1):
    """Rewards 0 to 1, early scores about half of them."""
    rng = np.random.default_rng(seed)
    rewards = rng.permutation(count) / count
    early = np.clip(0.5 * rewards + noise * rng.random(count), 0, 1)
    return list(zip(early.tolist(), rewards.tolist(), strict=True))


def records(count, per_round=8, **changes):
    """As a journal has them; `changes` by field."""
    return [
        {
            "phase": "search", "round": k // per_round, "slot": k % per_round, "status": "ok",
            "early": early, "reward": reward, **changes,
        }
        for k, (early, reward) in enumerate(pairs(count))
    ]  # fmt: skip


@pytest.mark.parametrize(("best", "lost"), [(0, None), (10, None), (11, 0), (17, 0), (18, 1)])
def test_how_many_of_the_best_may_be_lost(best, lost):
    """By hand for none: 1 - .1 ** (1 / k) <= .2 from k = 11 on. And by SciPy's binomial: to see so
    few, or fewer, at a risk of .2 has a chance of at most 10 %."""
    assert may_lose(best) == lost
    if lost is not None:
        assert stats.binom.cdf(lost, best, PROOF.risk) <= 1 - PROOF.confidence
        assert stats.binom.cdf(lost + 1, best, PROOF.risk) > 1 - PROOF.confidence


def test_off_until_there_is_proof():
    assert learn([]) is None
    assert learn(pairs(43)) is None
    rule = learn(pairs(44))
    assert rule is not None
    assert rule.trials == 44


def test_the_threshold_is_the_worst_early_score_of_the_best_quarter():
    """At k = 11 none may be lost; the reward is the mean of those below."""
    given = pairs(44)
    best = sorted(given, key=lambda pair: -pair[1])[:11]
    below = min(early for early, _ in best)
    ended = [reward for early, reward in given if early < below]
    rule = learn(given)
    assert rule == Rule(below, pytest.approx(np.mean(ended)), 44, len(ended))
    assert len(ended) > 20


def test_early_scores_that_say_nothing_end_next_to_nothing():
    """The rule still loses no more of the best than it may, and so ends few of the others."""
    rng = np.random.default_rng(1)
    rule = learn(list(zip(rng.random(400), rng.random(400), strict=True)))
    assert rule is not None
    assert rule.ended / rule.trials < 0.25


def test_no_rule_that_ends_nobody():
    """All early scores are 0, as long as nothing is found yet: none is below another."""
    assert learn([(0.0, reward) for _, reward in pairs(100)]) is None


def test_equal_rewards_at_the_border_are_not_the_best():
    """50 of 100 trials share the highest reward: no quarter is above the rest."""
    given = [(early, min(reward, 0.5)) for early, reward in pairs(100)]
    assert learn(given) is None


def test_the_bound_holds():
    """Of 500 rules, at most a tenth, and a little for chance, lose more than a fifth of the best.

    With early scores that are uniform and apart from the reward the part that is lost is the
    threshold itself.
    """
    rng = np.random.default_rng(2)
    proof = Proof(least=0)
    lost = [
        rule.below
        for _ in range(500)
        if (rule := learn(list(zip(rng.random(72), rng.random(72), strict=True)), proof))
    ]
    assert len(lost) == 500
    bad = np.mean(np.array(lost) > proof.risk)
    # k = 18, r = 1: Beta(2, 17) is above .2 with a chance of
    expected = stats.beta(2, 17).sf(0.2)
    assert expected <= 0.1
    assert bad == pytest.approx(expected, abs=4 * np.sqrt(expected / 500))


def test_a_rule_knows_nothing_of_its_own_round_nor_of_what_is_no_trial_of_a_search():
    history = records(56)
    rule = rule_of(6, history[:48], seed=0)
    assert rule is not None
    assert rule == rule_of(6, history[::-1], seed=0)
    others = [{**record, "phase": phase, "early": 0.0} for phase in ("rung", "final", "start")
              for record in history]  # fmt: skip
    assert rule == rule_of(6, others + history, seed=0)


def test_rounds_that_may_not_be_over_do_not_count():
    history = records(80)
    assert rule_of(6, history, seed=0, lag=1) is None
    assert rule_of(7, history, seed=0, lag=1) == rule_of(6, history, seed=0)


@pytest.mark.parametrize("without", [{"status": "failed"}, {"status": "stopped"}, {"early": None}])
def test_what_is_no_evidence(without):
    assert rule_of(12, records(96, **without), seed=0) is None


def test_a_diverged_trial_is_evidence():
    assert rule_of(6, records(48, status="diverged"), seed=0) == rule_of(6, records(48), seed=0)


def test_once_there_is_a_rule_only_exempt_trials_count():
    """Also those of them that the rule would have spared: the others are no fair sample."""
    history = records(400)
    for number in (6, 7, 20, 50):
        rule = rule_of(number, history, seed=3)
        free = sum(is_exempt(3, r, slot) for r in range(6, number) for slot in range(8))
        assert rule is not None
        assert rule.trials == 48 + free
    changed = [
        r if r["round"] < 6 or is_exempt(3, r["round"], r["slot"]) else {**r, "early": 1.0}
        for r in history
    ]
    assert rule_of(50, changed, seed=3) == rule_of(50, history, seed=3)


def test_a_rule_that_has_become_wrong_ends_itself():
    """From round 6 on good trials are slow to begin with, which only exempt ones show."""
    late = [{**r, "early": 0.0} if r["round"] >= 6 and r["reward"] > 0.5 else r
            for r in records(1600)]  # fmt: skip
    assert rule_of(6, late, seed=0) is not None
    assert rule_of(200, late, seed=0) is None


def test_an_eighth_is_exempt_by_place_alone():
    drawn = [is_exempt(seed, r, slot) for seed in range(4) for r in range(50) for slot in range(20)]
    assert drawn == [
        is_exempt(seed, r, slot) for seed in range(4) for r in range(50) for slot in range(20)
    ]
    assert np.mean(drawn) == pytest.approx(0.125, abs=0.02)
    assert not any(is_exempt(0, r, 0, Proof(exempt=0)) for r in range(50))


def test_what_a_trial_is_told():
    config = EarlyStopConfig(at=0.25, images=20)
    look = {"at": 0.25, "images": 20, "below": None, "reward": 0.0}
    rule = Rule(below=0.03, reward=0.01, trials=48, ended=20)
    assert early_stop(config, None, exempt=False) == look
    assert early_stop(config, rule, exempt=True) == look
    assert early_stop(config, rule, exempt=False) == look | {"below": 0.03, "reward": 0.01}
