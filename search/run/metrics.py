"""Counters and gauges of a search for Prometheus, exported by Ray on every node.

Ray puts `ray_` before a name, and `_total` behind a counter's. docs/cluster/metrics.md says how
they are scraped; cluster/grafana/paploss.json draws them.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ray.tune import Callback
from ray.util.metrics import Counter, Gauge, Histogram

Method = TypeVar("Method", bound=Callable[..., None])

_REPEAT_SECONDS = 1.0
"""Ray passes a gauge on once each time that it is set, and Prometheus would lose sight of it."""

COUNTERS = {
    "paploss_trials": ("trials that finished in this session", ("phase", "status")),
    "paploss_retries": ("trials started again; by `ray` or `reissued` by the search", ("by",)),
    "paploss_gpu_seconds": ("GPU time of finished trials: GPUs held x seconds", ()),
}
GAUGES = {
    "paploss_trials_finished": ("finished trials, those of earlier sessions too", ()),
    "paploss_trials_planned": ("trials of the whole search", ()),
    "paploss_trials_running": ("trials that run now", ()),
    "paploss_trials_pending": ("trials that wait for room", ()),
    "paploss_slots": ("trials that fit on the cluster side by side", ()),
    "paploss_nodes": ("machines that are alive", ()),
    "paploss_round": ("the round that trials are drawn from, from 0", ()),
    "paploss_reward_last": ("reward of the last search trial", ()),
    "paploss_reward_best": ("highest reward of a search trial", ()),
    "paploss_reward_round_mean": ("mean reward of the last whole round", ()),
    "paploss_reward_baseline": ("mean reward of the baseline", ()),
    "paploss_last_progress_timestamp_seconds": ("when a trial last started or finished", ()),
}
HISTOGRAMS = {"paploss_trial_seconds": ("wall time of a finished trial", ("phase",))}
_BOUNDARIES = [10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0]
_BOUNDARIES += [3600.0 * hours for hours in (1, 2, 4, 8, 24)]


def exported_names() -> set[str]:
    """The names under which Prometheus finds what this module exports."""
    histograms = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")}
    names = {f"{name}_total" for name in COUNTERS} | set(GAUGES) | histograms
    return {f"ray_{name}" for name in names}


def _harmless(method: Method) -> Method:
    """Whatever goes wrong with a metric, the search goes on."""

    @functools.wraps(method)
    def call(self: Any, *values: Any, **named: Any) -> None:
        try:
            method(self, *values, **named)
        except Exception:  # nobody can be told: metrics are not worth a line in a search's log
            return

    return call  # type: ignore[return-value]


class SearchMetrics(Callback):
    """Exports one search. It is a listener of the searcher's, and a callback of Tune's.

    Args:
        experiment: the search's name, the tag `experiment` of every metric.
    """

    def __init__(self, experiment: str) -> None:
        self._tags = {"experiment": experiment}
        self._metrics: dict[str, Any] = {
            **{name: Counter(name, text, _keys(tags)) for name, (text, tags) in COUNTERS.items()},
            **{name: Gauge(name, text, _keys(tags)) for name, (text, tags) in GAUGES.items()},
            **{
                name: Histogram(name, text, _BOUNDARIES, _keys(tags))
                for name, (text, tags) in HISTOGRAMS.items()
            },
        }
        self._records: list[Mapping[str, Any]] = []
        self._gauges: dict[str, float] = {}
        self._next_repeat = 0.0

    @_harmless
    def begin(self, records: Iterable[Mapping[str, Any]], planned: int) -> None:
        """A session begins: `records` have finished before, of `planned` trials in all."""
        self._records = list(records)
        self._set("trials_planned", planned)
        self._set("trials_finished", len(self._records))
        self._set("round", max((r["round"] for r in self._of("search")), default=0))
        self._set_rewards()
        rounds = {record["round"] for record in self._of("search")}
        if rounds:
            self._set_round_mean(max(rounds))
        self._progress()

    # --- told by the searcher -------------------------------------------------------------------

    def started(self, key: Mapping[str, Any]) -> None:
        """Tune tells the same by `on_trial_start`."""

    @_harmless
    def finished(self, record: Mapping[str, Any]) -> None:
        self._records.append(record)
        phase, seconds = record["phase"], record.get("seconds") or 0.0
        self._count("trials", phase=phase, status=record["status"])
        self._count("gpu_seconds", seconds * (record.get("gpus") or 0.0))
        self._metrics["paploss_trial_seconds"].observe(seconds, {**self._tags, "phase": phase})
        self._set("trials_finished", len(self._records))
        for _ in range(record.get("attempt") or 0):
            self._count("retries", by="reissued")
        if phase == "search" and record.get("reward") is not None:
            self._set("reward_last", record["reward"])
        self._set_rewards()
        self._progress()

    @_harmless
    def round_done(self, round: int) -> None:
        self._set_round_mean(round)
        self._set("round", round + 1)

    def note(self, text: str) -> None:
        """Notes are words."""

    @_harmless
    def nodes(self, nodes: Any, slots: int) -> None:
        self._set("nodes", len(nodes))
        self._set("slots", slots)

    # --- told by Tune ---------------------------------------------------------------------------

    @_harmless
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._progress()

    @_harmless
    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._count("retries", by="ray")

    @_harmless
    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if time.monotonic() < self._next_repeat:
            return
        self._next_repeat = time.monotonic() + _REPEAT_SECONDS
        alive = [trial.status for trial in trials if trial.status in ("PENDING", "RUNNING")]
        self._gauges["paploss_trials_running"] = float(alive.count("RUNNING"))
        self._gauges["paploss_trials_pending"] = float(alive.count("PENDING"))
        for name, value in self._gauges.items():
            self._metrics[name].set(value, self._tags)

    # --- inside ---------------------------------------------------------------------------------

    def _of(self, phase: str) -> list[Mapping[str, Any]]:
        return [record for record in self._records if record["phase"] == phase]

    def _rewards(self, phase: str) -> list[float]:
        return [r["reward"] for r in self._of(phase) if r["reward"] is not None]

    def _set_rewards(self) -> None:
        if searched := self._rewards("search"):
            self._set("reward_best", max(searched))
        if baseline := self._rewards("baseline"):
            self._set("reward_baseline", sum(baseline) / len(baseline))

    def _set_round_mean(self, round: int) -> None:
        of_round = [r["reward"] for r in self._of("search") if r["round"] == round]
        rewards = [reward for reward in of_round if reward is not None]
        if rewards:
            self._set("reward_round_mean", sum(rewards) / len(rewards))

    def _progress(self) -> None:
        self._set("last_progress_timestamp_seconds", time.time())

    def _set(self, name: str, value: float) -> None:
        self._gauges[f"paploss_{name}"] = float(value)
        self._metrics[f"paploss_{name}"].set(float(value), self._tags)

    def _count(self, name: str, amount: float = 1.0, **tags: str) -> None:
        if amount > 0:
            self._metrics[f"paploss_{name}"].inc(amount, {**self._tags, **tags})


def _keys(tags: tuple[str, ...]) -> tuple[str, ...]:
    return ("experiment", *tags)
