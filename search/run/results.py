"""What a search leaves: its table, its report, and the winner as a training YAML."""

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from paploss.errors import BadExperiment
from paploss.files import read_json, write_json
from search.history import History, load_history, write_history_csv
from search.journal import TrialKey
from search.report import write_report
from search.reward import reward_name
from search.run.confirm import confirm_winner, first_repeat
from search.run.experiment import open_experiment
from search.standings import standings, winner
from trainers.export import training_config, write_training_yaml


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


def add_wall_time(experiment: Path, seconds: float, slots: int) -> None:
    """Sum up the sessions' time in summary.json, for the report."""
    before = _summary(experiment).get("wall_seconds", 0.0)
    _summarize(experiment, wall_seconds=before + seconds, slots=slots, versions=versions())


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
    # A best guess has a label of its own, and may be a sample all the same.
    samples = (r for r in records if r["phase"] == "search")
    sample = next((r for r in samples if tuple(r["theta"]) == best.theta), {})
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
        **_as_text(finals[0]),
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
        **_as_text(record),
    }


def _as_text(record: Mapping[str, Any]) -> dict[str, Any]:
    """The formulas of a record as people write them, where it has any."""
    return {"formulas": dict(record["formulas"])} if record["formulas"] else {}


def _hash(configuration: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of a configuration's content."""
    text = json.dumps(configuration, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _summarize(experiment: Path, **facts: Any) -> None:
    write_json(experiment / "summary.json", {**_summary(experiment), **facts})


def _summary(experiment: Path) -> dict[str, Any]:
    path = experiment / "summary.json"
    return dict(read_json(path)) if path.exists() else {}
