"""An experiment: made from settings, run to its end over any number of sessions, written up."""

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from loss import criterion_title
from loss.by_head import family_of
from paploss.errors import BadExperiment, SearchStopped
from paploss.files import (
    is_of_storage,
    read_json,
    read_yaml,
    storage_reason,
    write_json,
    write_yaml,
)
from search.config import SearchConfig
from search.exit_codes import Exit, Interrupted
from search.history import History, load_history, write_history_csv
from search.journal import Journal, TrialKey
from search.plan import Plan
from search.report import write_report
from search.reward import reward_name
from search.run.cluster import Cluster
from search.run.confirm import confirm_winner, first_repeat
from search.run.follower import Follower
from search.run.head import watch_head
from search.run.load import split_config
from search.run.only_process import only_process
from search.run.tune import run_tune
from search.space import SearchSpace
from search.standings import standings, winner
from trainers.config import TaskConfig
from trainers.export import training_config, write_training_yaml
from trainers.trainable import TrialTrainable


def create_experiment(config: SearchConfig, task: TaskConfig) -> Path:
    """The directory of a new experiment, with its configuration in it.

    Raises:
        BadExperiment: it exists, or storage cannot be written.
    """
    experiment = (config.storage / config.name).absolute()
    try:
        experiment.mkdir(parents=True, exist_ok=True)
        if any(experiment.iterdir()):
            raise BadExperiment(
                f"the experiment {experiment} exists already. Continue it with `paploss resume "
                f"{experiment}`, or give this search another name with `--set name=...`."
            )
        write_yaml(experiment / "config.yaml", _dump(config, task))
    except OSError as error:
        raise BadExperiment(
            f"cannot write to {experiment}: {error.strerror}. Choose another place with "
            "`--set storage=...`, or make room there."
        ) from error
    names = family_of(task.criterion).names
    write_json(experiment / "space.json", {"names": names, "start": task.start})
    return experiment


def open_experiment(experiment: Path) -> tuple[SearchConfig, TaskConfig]:
    """The configuration of an experiment that `create_experiment` made.

    Raises:
        BadExperiment: there is none.
    """
    path = experiment / "config.yaml"
    if not path.exists():
        raise BadExperiment(
            f"{experiment} is no experiment: it has no config.yaml. Experiments are the folders "
            "that `paploss search` makes, experiments/<name> unless told otherwise."
        )
    return split_config(read_yaml(path), str(path))


def start_experiment(config: SearchConfig, task: TaskConfig) -> Path:
    """Create an experiment and run it; nothing is created where the cluster cannot run it.

    Returns and raises as `run_experiment` and `create_experiment` do.
    """
    with Cluster.connect(config.resources, config.algorithm.samples) as cluster:
        decided = config.model_copy(update={"resources": cluster.resources})
        return run_experiment(create_experiment(decided, task))


def run_experiment(experiment: Path, trainable: Any = TrialTrainable) -> Path:
    """Run what is still to run of an experiment, and write its results.

    Args:
        trainable: the actor that runs a trial.

    Returns:
        The path of its best.yaml.

    Raises:
        Interrupted: by the user; `paploss resume` goes on.
        SearchStopped: the search cannot go on; the message says why.
        BadExperiment: another process runs it.
        NotEnoughResources: the cluster can never run one of its trials.
    """
    experiment = experiment.absolute()
    config, task = open_experiment(experiment)
    advice = f"Watch it with `paploss show {experiment}`, or stop it first."
    with only_process(experiment, advice):
        plan = _plan_to_run(experiment, config, task)
        if plan.finished:  # only written up again
            ending = _write_up(experiment, config, task, None)
        else:
            ending = _run_to_end(experiment, config, task, plan, trainable)
    if ending is not None:
        raise ending
    return experiment / "best.yaml"


def _run_to_end(
    experiment: Path, config: SearchConfig, task: TaskConfig, plan: Plan, trainable: Any
) -> SearchStopped | Interrupted | None:
    """Run trials and write up what is known then; what to tell the user, short of the end."""
    with Follower(experiment, plan.space, config) as follower:
        problem = None
        # Tune does not listen to Ctrl-C before its start and at its end.
        with contextlib.suppress(KeyboardInterrupt):
            end = _EndAtOnce(experiment, config, task, follower)
            problem = _run_session(experiment, config, plan, follower, trainable, end)
        ending = _write_up(experiment, config, task, problem)
        if ending is not None:
            stopped = isinstance(ending, SearchStopped)
            follower.end("stopped" if stopped else "interrupted", problem)
    return ending


def _plan_to_run(experiment: Path, config: SearchConfig, task: TaskConfig) -> Plan:
    """What is to run in this session; failures that stopped the last one are tried again."""
    plan = plan_of(experiment, config, task)
    try:
        plan.retry_failed_round()
    except OSError as error:
        raise BadExperiment(
            f"cannot write to {experiment}: {error.strerror}. Make room there, or make it writable."
        ) from error
    return plan


def _write_up(
    experiment: Path, config: SearchConfig, task: TaskConfig, problem: str | None
) -> SearchStopped | Interrupted | None:
    """Write what is known so far; what to tell the user of a search that is not at its end.

    Args:
        problem: why it has stopped; None where the user has interrupted it.
    """
    # What counts is not what Tune says but what is on storage.
    plan = plan_of(experiment, config, task)
    try:
        write_results(experiment)
    except OSError as error:
        if not is_of_storage(error):
            raise
        problem = problem or f"{storage_reason(error, experiment)}. Make room there."
    else:
        if plan.finished:
            return None
    done = f"{len(plan.records)} of {plan.total_trials} trials are finished and kept"
    how = f"go on with: paploss resume {_short(experiment)}"
    if problem:
        return SearchStopped(f"the search has stopped: {problem}\n{done}; {how}")
    return Interrupted(f"interrupted; {done}; {how}")


def _run_session(
    experiment: Path,
    config: SearchConfig,
    plan: Plan,
    follower: Follower,
    trainable: Any,
    end: Callable[[str], None],
) -> str | None:
    """Run trials as far as this session gets; the searcher's problem, if it has one.

    Args:
        end: ends the process, with a reason, where nothing else is possible any more.
    """
    begun = time.monotonic()
    with Cluster.connect(config.resources, config.algorithm.samples) as cluster:
        follower.begin(plan.records, cluster.slots)
        for damaged in plan.journal.damaged:
            follower.note(damaged)
        try:
            with watch_head(follower.note, end):
                return run_tune(
                    experiment, plan.space, config, plan.baseline, cluster, follower, trainable
                )
        finally:
            follower.stop()
            with contextlib.suppress(OSError):
                _add_wall_time(experiment, time.monotonic() - begun, cluster.slots)


class _EndAtOnce:
    """Ends a search whose main thread is lost inside Ray: all is written, then the process ends.

    From a thread, a few seconds before Ray would end the process itself, and say so its own way.
    """

    def __init__(
        self, experiment: Path, config: SearchConfig, task: TaskConfig, follower: Follower
    ) -> None:
        self._search = (experiment, config, task)
        self._follower = follower

    def __call__(self, problem: str) -> None:
        try:
            self._follower.stop()
            ending = _write_up(*self._search, problem)
            self._follower.end("stopped", problem)
            self._follower.__exit__(None, None, None)
            print(f"error: {ending}", file=sys.stderr, flush=True)
        finally:
            os._exit(Exit.STOPPED)


def plan_of(experiment: Path, config: SearchConfig, task: TaskConfig) -> Plan:
    """What is still to run of an experiment, from its journal."""
    names = family_of(task.criterion).names
    space = SearchSpace(names, task.start, task.start_label)
    return Plan(space, config, Journal(experiment), criterion_title(task.baseline))


def write_results(experiment: Path) -> None:
    """history.csv, the report, and best.yaml once there is a final candidate with a score.

    The winner's score is then confirmed, once.
    """
    history = load_history(experiment)
    write_history_csv(history, experiment / "history.csv")
    if winner(standings(history)) is not None:
        export_training(experiment, experiment / "best.yaml")
        _confirm(experiment, history)
    write_report(experiment)


def _confirm(experiment: Path, history: History) -> None:
    """Have the winner scored again, unless it has been: on COCO that takes a minute."""
    before = _summary(experiment).get("confirmation", {})
    _, task = open_experiment(experiment)
    if "found" not in before or before["trial"] != first_repeat(history)["trial_dir"]:
        _summarize(experiment, confirmation=confirm_winner(history, task.data))


def export_training(experiment: Path, out: Path, trial: str | None = None) -> None:
    """Write a training YAML: of the winner, or of the trial with the key `trial`.

    Raises:
        BadExperiment: no experiment, nothing to export yet, no such trial, or `out` cannot be
            written.
    """
    config, task = open_experiment(experiment)
    history = load_history(experiment)
    if trial is None:
        found = _winner_of(history, experiment)
    else:
        found = _trial_of(history, experiment, trial)
    theta, seed = found.pop("theta"), found["seeds"][0]
    found_by = {
        "experiment": config.name,
        **found,
        "configuration_hash": _hash(history.config),
        "versions": versions(),
    }
    try:
        training = training_config(task, theta, seed, found_by)
    except (ValueError, TypeError) as error:  # a record that was changed by hand
        reason = " ".join(str(error).split())
        raise BadExperiment(
            f"{experiment}: the record of {found_by['candidate']} does not fit the search's "
            f"criterion, so no training can be made of it: {reason}"
        ) from error
    try:
        write_training_yaml(training, out)
    except OSError as error:
        raise BadExperiment(
            f"cannot write {out}: {error.strerror}. Give another file, or make room there."
        ) from error


def versions() -> dict[str, str]:
    """Of everything that a result depends on."""
    names = ["paploss", "torch", "ray", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine"]
    found = {"python": platform.python_version()}
    for name in [*names, "numpy", "faster-coco-eval", "hotcoco"]:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _winner_of(history: History, experiment: Path) -> dict[str, Any]:
    """Theta of the winner, and where it came from: scores with their spread, seeds, its sample."""
    best = winner(standings(history))
    if best is None:
        raise BadExperiment(
            f"{experiment} has no winner yet: its final race has not been run. Go on with "
            f"`paploss resume {experiment}`, or export one trial with `--trial search-000-00-0`."
        )
    records = history.records
    finals = [r for r in records if r["phase"] == "final" and r["round"] == best.candidate]
    sample = next((r for r in records if r["phase"] == "search" and r["label"] == best.label), {})
    return {
        "theta": best.theta,
        "candidate": best.label,
        **{name: sample.get(name) for name in ("round", "slot", "reward")},
        "scored_by": reward_name(history.config),
        "test_mean": best.mean_test,
        "test_std": best.std_test,
        "val_mean": best.mean_val,
        "seeds": [record["seed"] for record in finals],
        "fingerprint": finals[0]["fingerprint"],
    }


def _trial_of(history: History, experiment: Path, trial: str) -> dict[str, Any]:
    """Theta of one trial, and where it came from."""
    records = {str(TrialKey.of(record)): record for record in history.records}
    record = records.get(trial)
    if record is None or record["theta"] is None:
        raise BadExperiment(
            f"{experiment} has no trial {trial!r} with a theta; the names of its trials are those "
            f"of the files in {experiment / 'journal'}, such as search-000-00-0."
        )
    fields = ("theta", "round", "slot", "reward", "fingerprint")
    return {
        **{name: record[name] for name in fields},
        "candidate": record["label"],
        "seeds": [record["seed"]],
    }


def _hash(configuration: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of a configuration's content."""
    text = json.dumps(configuration, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _dump(config: SearchConfig, task: TaskConfig) -> dict[str, Any]:
    return {**config.model_dump(mode="json"), **task.model_dump(mode="json")}


def _add_wall_time(experiment: Path, seconds: float, slots: int) -> None:
    """Sum up the sessions' time in summary.json, for the report."""
    before = _summary(experiment).get("wall_seconds", 0.0)
    _summarize(experiment, wall_seconds=before + seconds, slots=slots, versions=versions())


def _summarize(experiment: Path, **facts: Any) -> None:
    write_json(experiment / "summary.json", {**_summary(experiment), **facts})


def _summary(experiment: Path) -> dict[str, Any]:
    path = experiment / "summary.json"
    return dict(read_json(path)) if path.exists() else {}


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return min(relative, str(path), key=len)
