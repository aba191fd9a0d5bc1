"""Metrics never end a search, and what they count; that they arrive: tests/service/test_on_demand.

The values are taken where they are given to Ray.
"""

import pytest

from search.run import metrics
from search.run.metrics import COUNTERS, GAUGES, HISTOGRAMS, SearchMetrics


class Kept:
    """A metric of Ray's that keeps what it is given, and takes only tags that it has."""

    def __init__(self, name, text, *more):
        self.keys = set(more[-1])
        self.values, self.count = [], {}

    def _check(self, tags):
        assert set(tags) == self.keys

    def set(self, value, tags):
        self._check(tags)
        self.values.append(value)

    def inc(self, amount, tags):
        self._check(tags)
        assert amount > 0  # as Ray's does
        key = tuple(value for name, value in tags.items() if name != "experiment")
        self.count[key] = self.count.get(key, 0) + amount

    def observe(self, value, tags):
        self._check(tags)
        self.values.append(value)


@pytest.fixture
def kept(monkeypatch):
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, Kept)
    exported = SearchMetrics("toy")
    exported.begin([], 20)
    return exported


def value(exported, name):
    return exported._metrics[f"paploss_{name}"].values[-1]


def count(exported, name):
    return exported._metrics[f"paploss_{name}"].count


def test_trials_by_phase_and_status(kept, record):
    kept.finished(record("baseline", ap=0.2))
    kept.finished(record("search", 0, 0, ap=0.3, gpus=2.0, seconds=10.0))
    kept.finished(record("search", 0, 1, ap=0.1, attempt=2))
    kept.finished(record("search", 0, 2, status="failed", ap=None))
    assert count(kept, "trials") == {
        ("baseline", "ok"): 1, ("search", "ok"): 2, ("search", "failed"): 1
    }  # fmt: skip
    assert value(kept, "trials_finished") == 4
    assert count(kept, "gpu_seconds") == {(): 20.0}  # 2 GPUs for 10 seconds
    assert count(kept, "retries") == {("reissued",): 2}
    assert value(kept, "reward_last") == 0.1  # the failed one has none
    assert value(kept, "reward_best") == 0.3
    assert value(kept, "reward_baseline") == 0.2


def test_the_mean_of_a_round_is_that_of_its_rewards(kept, record):
    for slot, ap in enumerate((0.1, 0.2, 0.6)):
        kept.finished(record("search", 3, slot, ap=ap))
    kept.finished(record("search", 3, 3, status="failed", ap=None))
    kept.finished(record("search", 4, 0, ap=0.9))
    kept.round_done(3)
    assert value(kept, "reward_round_mean") == pytest.approx(0.3)
    assert value(kept, "round") == 4


def test_a_resumed_search_goes_on(kept, record):
    kept.begin([record("baseline", ap=0.2), record("search", 2, 0, ap=0.4)], 20)
    assert (value(kept, "trials_finished"), value(kept, "trials_planned")) == (2, 20)
    assert (value(kept, "round"), value(kept, "reward_best")) == (2, 0.4)
    assert count(kept, "trials") == {}  # of this session


def test_what_tune_tells(kept):
    class Trial:
        def __init__(self, status):
            self.status = status

    trials = [Trial(status) for status in ("RUNNING", "PENDING", "RUNNING", "TERMINATED")]
    kept.on_step_end(iteration=0, trials=trials)
    assert (value(kept, "trials_running"), value(kept, "trials_pending")) == (2, 1)
    kept.on_trial_recover(iteration=0, trials=trials, trial=trials[0])
    assert count(kept, "retries") == {("ray",): 1}
    kept.nodes([1, 2, 3], 7)
    assert (value(kept, "nodes"), value(kept, "slots")) == (3, 7)


def test_gauges_are_set_again_and_again(kept, monkeypatch, record):
    # Ray forgets what it has passed on.
    monkeypatch.setattr(metrics, "_REPEAT_SECONDS", 0.0)
    kept.finished(record("search", 0, 0, ap=0.3))
    for name in ("trials_planned", "reward_best", "trials_running"):
        kept._metrics[f"paploss_{name}"].values.clear()
    for _ in range(3):
        kept.on_step_end(iteration=0, trials=[])
    assert kept._metrics["paploss_trials_planned"].values == [20.0] * 3
    assert kept._metrics["paploss_reward_best"].values == [0.3] * 3
    assert kept._metrics["paploss_trials_running"].values == [0.0] * 3


def test_nothing_that_is_told_ends_a_search(kept, monkeypatch, record):
    kept.finished({})
    kept.finished(record("search", 0, 0, seconds="long"))
    kept.round_done("x")
    kept.nodes(None, None)
    kept.on_step_end(iteration=0, trials=None)
    kept.begin(None, None)

    def broken(*_):
        raise RuntimeError("no agent")

    monkeypatch.setattr(Kept, "set", broken)
    monkeypatch.setattr(Kept, "inc", broken)
    kept.finished(record("search", 0, 1))
    kept.on_trial_start(iteration=0, trials=[], trial=None)
    kept.on_trial_recover(iteration=0, trials=[], trial=None)


def test_names_and_descriptions():
    every = {**COUNTERS, **GAUGES, **HISTOGRAMS}
    assert len(every) == len(COUNTERS) + len(GAUGES) + len(HISTOGRAMS)
    for name, (text, tags) in every.items():
        assert name.startswith("paploss_") and not name.endswith("_total")  # Ray adds that
        assert text and "experiment" not in tags
