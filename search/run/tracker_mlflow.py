"""MLflow: one run a trial, in an MLflow experiment that is named like the search.

MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, MLFLOW_TRACKING_USERNAME and the others mean what they
always do.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback

from paploss.errors import BadConfig
from search.run.trackers import PATIENCE, said


def check_mlflow() -> None:
    """Ask the tracking server, or store, for one thing.

    Raises:
        BadConfig: it gives an error, or no answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise BadConfig(
            "trackers: mlflow does not know where to report to. Set MLFLOW_TRACKING_URI, such as "
            "http://host:5000, or leave mlflow out of `trackers`."
        )
    problem = _answer(uri, PATIENCE / 2)
    if problem:
        raise BadConfig(
            f"trackers: the MLflow of MLFLOW_TRACKING_URI cannot be used: {problem.rstrip('.')}. "
            "Check the address (mlflow-skinny reports to servers; a database file takes the whole "
            "`pip install mlflow`, a folder MLFLOW_ALLOW_FILE_STORE=true) and the login "
            "(MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN), or leave mlflow out of "
            "`trackers`."
        )


def make_mlflow(name: str, experiment: Path) -> Any:
    """Ray's callback for the search `name`."""
    return _MLflow(experiment, os.environ.get("MLFLOW_EXPERIMENT_NAME") or name)


class _MLflow(MLflowLoggerCallback):
    """Ray's callback; what is no number becomes a tag, and no run is left running."""

    def __init__(self, experiment: Path, name: str) -> None:
        uri = os.environ["MLFLOW_TRACKING_URI"]
        super().__init__(uri, experiment_name=name, tags={"paploss.search": experiment.name})
        self.experiment = experiment
        self._client = MlflowClient(tracking_uri=uri)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        super().log_trial_result(iteration, trial, result)
        for name in ("status", "fingerprint"):
            if name in result:
                self._client.set_tag(self._trial_runs[trial], name, result[name])

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        super().log_trial_end(trial, failed)
        self._trial_runs.pop(trial)

    def on_experiment_end(self, *_: Any, **__: Any) -> None:
        for run in self._trial_runs.values():  # of an interrupted search
            self._client.set_terminated(run, status="KILLED")


def _answer(uri: str, seconds: float) -> str | None:
    """What is wrong with a tracking store, if anything; its own client tries for minutes."""
    problems: list[str] = []

    def ask() -> None:
        try:
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        except Exception as error:  # of whatever kind of store
            problems.append(said(error))

    # Its client would tell of every try.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # A daemon: an address that never answers must not keep the process alive.
    asking = threading.Thread(target=ask, name="mlflow", daemon=True)
    asking.start()
    asking.join(seconds)
    return f"no answer for {seconds:.0f} s" if asking.is_alive() else next(iter(problems), None)
