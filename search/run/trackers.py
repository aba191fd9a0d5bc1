"""Experiment trackers that a search also reports to, through Ray's own callbacks.

One run a trial, made from what the journal knows; what is kept of a search does not depend on
them. They get their settings, keys too, from the environment alone, as they do everywhere.
"""

import contextlib
import importlib.util
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.logger import TBXLoggerCallback

from paploss.errors import BadConfig
from search.config import SearchConfig

PATIENCE = 60.0
"""Seconds that the end of a search, or its start, waits for a tracker."""
_SOON = 2.0
_TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
_PREFIXES, _SECRET, _LONGEST = ("WANDB_", "MLFLOW_"), ("KEY", "TOKEN", "PASSWORD"), 200
_RESULTS = ("reward", "status", "fingerprint", "iterations", "training_iteration")


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Make sure that trackers can be reported to, before anything is spent.

    Raises:
        BadConfig: a package or a login is missing, or nothing answers.
    """
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise BadConfig(
                f"trackers: {name} is not installed. Install it with `pip install "
                f"'paploss[{name}]'`, or leave {name} out of `trackers`."
            )
        if name == "wandb":
            from search.run.tracker_wandb import check_wandb as check
        else:
            from search.run.tracker_mlflow import check_mlflow as check
        check()


def tracker_callbacks(
    config: SearchConfig, experiment: Path, say: Callable[[str], object]
) -> list[Any]:
    """Tune callbacks for `config.trackers`, and one that keeps Ray's TensorBoard files away.

    Args:
        say: told one line when a tracker does not take what it is given.

    Raises:
        BadConfig: see `check_trackers`.
    """
    check_trackers(config.trackers)
    callbacks: list[Any] = [_OwnTensorBoard()]  # type: ignore[no-untyped-call]
    for name in config.trackers:
        if name == "wandb":
            from search.run.tracker_wandb import make_wandb as make
        else:
            from search.run.tracker_mlflow import make_mlflow as make
        callbacks.append(Tracker(_TITLES[name], make(config.name, experiment), say))
    return callbacks


@dataclass(frozen=True)
class TrackedTrial:
    """What a tracker is told of a trial, under the names that Ray's callbacks look for.

    It does not change while they are busy with it, and has no path of this machine in its config.
    """

    trial_id: str
    name: str = field(compare=False)
    config: dict[str, Any] = field(compare=False)
    local_path: str = field(compare=False)
    experiment_dir_name: str = field(compare=False)
    checkpoint: None = field(default=None, compare=False)

    @staticmethod
    def of(trial: Any, experiment: Path) -> "TrackedTrial":
        config = {name: value for name, value in trial.config.items() if name != "experiment"}
        folder = str(experiment)
        return TrackedTrial(trial.trial_id, str(trial), config, folder, experiment.name)

    def __str__(self) -> str:
        return self.name


class Tracker(Callback):
    """Passes trials to one of Ray's logger callbacks, from a thread of its own.

    So a search neither waits for a tracker nor ends with it. What fails is said once.

    Args:
        title: the tracker's name.
        inner: a `ray.tune.logger.LoggerCallback`.
    """

    def __init__(self, title: str, inner: Any, say: Callable[[str], object]) -> None:
        self._title, self._inner, self._say = title, inner, say
        self._experiment = Path(inner.experiment)
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._complained = False
        self._thread = threading.Thread(target=self._run, name=title, daemon=True)

    def setup(self, *_: Any, **__: Any) -> None:
        self._thread.start()
        self._calls.put(self._inner.setup)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        told = TrackedTrial.of(trial, self._experiment)
        self._calls.put(lambda: self._inner.log_trial_start(told))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **_: Any
    ) -> None:
        told, results = TrackedTrial.of(trial, self._experiment), results_of(result)
        self._calls.put(lambda: self._inner.log_trial_result(iteration, told, results))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(trial, failed=(trial.last_result or {}).get("status") == "failed")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(trial, failed=True)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        self._calls.put(lambda: self._inner.on_experiment_end(trials=[]))
        self._calls.put(None)
        self._thread.join(_SOON)
        if self._thread.is_alive():
            self._tell(f"waiting for {self._title}, for {PATIENCE:.0f} s at most")
            self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._tell(f"{self._title} has not taken all in {PATIENCE:.0f} s; the rest is left out")

    def _end(self, trial: Any, failed: bool) -> None:
        told = TrackedTrial.of(trial, self._experiment)
        self._calls.put(lambda: self._inner.log_trial_end(told, failed))

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever a network does
                if not self._complained:
                    self._complained = True
                    self._tell(f"{self._title} lacks trials: {said(error)}; the search goes on")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(Exception):
            self._say(line)


def results_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a trial's result is a tracker's to show: scores, status, how long it took."""
    scores = {name: x for name, x in result.items() if name.startswith(("val_", "test_"))}
    known = {name: result[name] for name in _RESULTS if result.get(name) is not None}
    seconds = {"seconds": result["time_total_s"]} if "time_total_s" in result else {}
    # COCO's -1, and None, say that there is nothing to be found.
    told = {name: x for name, x in scores.items() if x is not None and x >= 0}
    return {**known, **told, **seconds}


def said(error: Exception) -> str:
    """What an error says, in one line and without passwords: it goes into files, too."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"(?<=://)[^/\s'\"]*@", "", text)
    for name, value in os.environ.items():
        if value and name.startswith(_PREFIXES) and name.endswith(_SECRET):
            text = text.replace(value, "***")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def environment(*prefixes: str) -> dict[str, str]:
    """The variables of this process that a tracker is set by."""
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


class _OwnTensorBoard(TBXLoggerCallback):
    """In the place of Ray's TensorBoard files, which `search.tensorboard` has better ones for.

    Ray adds its own logger unless it is given one of this kind.
    """

    def log_trial_start(self, trial: Any) -> None:
        pass

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        pass

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        pass
