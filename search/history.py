"""The experiment directory read back as tables.

The journal, one file for each finished trial, is the truth; everything that is shown is made
from it. This module only reads, apart from `write_history_csv`, and it takes an experiment at
any moment of its life: empty, half done, interrupted, or with a file cut short by a full disk.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from paploss.errors import BadExperiment
from paploss.files import read_json, read_yaml, write_atomic
from paploss.paths import is_plain_name
from search.rejections import RoundOfSamples, read_samples, rejected_rows

PHASES = ("baseline", "start", "rung", "search", "final")
METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn"),
)
TIMINGS = ("setup", "train", "early", "evaluate")
_PLAIN = (
    *("phase", "round", "slot", "repeat", "label", "status", "reward", "test_reward", "seconds"),
    *("early", "iterations", "attempt", "seed", "gradient_scale", "fingerprint", "error"),
    *("cpus", "gpus", "node", "trial_id", "trial_dir", "started", "finished"),
)
_NUMBERS = [
    "reward",
    "test_reward",
    "early",
    "seconds",
    "gradient_scale",
    "cpus",
    "gpus",
    "started",
    "finished",
]


def _in_experiment(folder: str) -> str:
    # It is joined to the experiment's path, to read and to write there.
    if not is_plain_name(folder):
        raise ValueError("expected the name of a folder in the experiment")
    return folder


def _writable(text: str) -> str:
    # A file name in an error may hold bytes that are no text, which Python keeps as half characters
    # that no file and no table takes.
    return text.encode("utf-8", "replace").decode()


Text = Annotated[str, AfterValidator(_writable)]
Unit = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]
Folder = Annotated[str, AfterValidator(_in_experiment)]


class _Record(BaseModel):
    """What a journal file must hold to be of use, and what stands in for the rest."""

    phase: Literal["baseline", "start", "rung", "search", "final"]
    round: int = Field(ge=0, lt=10**6)
    slot: int = Field(ge=0, lt=10**6)
    repeat: int = Field(ge=0, lt=10**6)
    label: Text
    theta: list[Unit] | None
    status: Literal["ok", "diverged", "stopped", "failed"]
    reward: float | None = Field(ge=0, le=1)
    test_reward: float | None = Field(None, ge=0, le=1)
    early: float | None = Field(None, ge=0, le=1)
    seconds: Seconds
    control_points: dict[Text, list[tuple[Finite, Finite]]] | None = None
    gradient_scale: Finite | dict[Text, Finite] | None = None
    formulas: dict[Text, Text] | None = None
    seed: int | None = Field(None, ge=0, lt=2**64)
    val: dict[Text, float | None] | None = None
    test: dict[Text, float | None] | None = None
    timing: dict[Text, Finite] = {}
    fingerprint: Text | None = None
    error: Text | None = None
    skipped_images: dict[Text, Text] = {}
    iterations: int | None = Field(None, ge=0, lt=2**63)
    attempt: int = Field(0, ge=0, lt=10**6)
    trial_id: Text | None = None
    trial_dir: Folder | None = None
    node: Text | None = None
    cpus: Finite | None = None
    gpus: Finite | None = None
    workers: int = 1
    started: Seconds | None = None
    finished: Seconds | None = None


@dataclass(frozen=True)
class History:
    """One experiment, as far as it has come.

    Attributes:
        path: the experiment directory.
        config: its config.yaml.
        records: the journal's records, one a finished trial, in the order of `trials`.
        trials: one row a finished trial: baseline, start, rung and then search by round and slot,
            final by candidate (in the column `round`) and repeat. The reward of a trial that was
            `stopped` is an estimate; `early` is a score part of the way, by which that is decided.
            Theta is one column a coordinate, `theta.<name>`; the gradient scale is
            `gradient_scale`, or one column a head, `gradient_scale.<head>`; a formula is
            `formula.<branch>`, as text; AP on the two held-out splits is `val_AP`, `test_AP`, and
            so for the other `METRICS`, NaN where a trial has none.
        policy: one row a round and coordinate: round, coordinate, mean, std.
        damaged: the files that could not be used, each with the reason.
        samples: what was drawn, round by round, and what was rejected on the way.
        rejected: one row a rejected sample: round, slot, attempt, stage, reason, waived (tried all
            the same), and theta as in `trials`.
    """

    path: Path
    config: dict[str, Any]
    records: tuple[dict[str, Any], ...]
    trials: pd.DataFrame
    policy: pd.DataFrame
    damaged: tuple[str, ...] = ()
    samples: tuple[RoundOfSamples, ...] = ()
    rejected: pd.DataFrame = field(default_factory=pd.DataFrame)


def load_history(experiment: Path) -> History:
    """Read an experiment directory; a damaged file is left out and named in `damaged`.

    A running search reads its directory again and again, so this says nothing by itself: what
    shows a history to somebody shows the damaged files too.

    Raises:
        BadExperiment: there is no such directory, or it holds no experiment.
        BadConfig: its config.yaml cannot be read.
    """
    experiment = Path(experiment)
    if not (experiment / "config.yaml").is_file():
        what = "has no config.yaml" if experiment.is_dir() else "is not a directory"
        raise BadExperiment(
            f"{experiment} {what}, so it is not an experiment of paploss. Give the directory that "
            "`paploss search` named when it started: STORAGE/NAME of its configuration."
        )
    damaged: list[str] = []
    names = _read_names(experiment / "space.json", damaged)
    records = sorted(_read_journal(experiment / "journal", damaged), key=_order)
    policies = list(_read_policies(experiment / "policy", damaged))
    samples = tuple(read_samples(experiment / "samples", damaged))
    # Relative to the experiment: what is shown of it holds no path of this machine.
    damaged = [reason.removeprefix(f"{experiment}{os.sep}") for reason in damaged]
    return History(
        path=experiment,
        config=read_yaml(experiment / "config.yaml"),
        records=tuple(records),
        trials=_trials_table(records, names),
        policy=_policy_table(policies, names),
        samples=samples,
        rejected=_rejected_table(samples, names),
        damaged=tuple(damaged),
    )


def write_history_csv(history: History, path: Path) -> None:
    """Write `history.trials` as CSV, whole or not at all; floats survive to the last digit."""
    write_atomic(Path(path), history.trials.to_csv(index=False, lineterminator="\n"))


def shared_fingerprints(history: History) -> dict[str, list[str]]:
    """Fingerprints that search trials with different thetas have in common, with their labels.

    A fingerprint hashes what a fixed probe batch gave under a trial's loss, so an entry here is
    a sign that theta, or a part of it, did not reach the training.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in history.records:
        if record["phase"] == "search" and record["fingerprint"] is not None:
            groups.setdefault(record["fingerprint"], []).append(record)
    return {
        fingerprint: [record["label"] for record in group]
        for fingerprint, group in groups.items()
        if len({tuple(record["theta"] or ()) for record in group}) > 1
    }


def _order(record: Mapping[str, Any]) -> tuple[int, ...]:
    return PHASES.index(record["phase"]), record["round"], record["slot"], record["repeat"]


def _read_object(path: Path, damaged: list[str]) -> dict[str, Any] | None:
    """The JSON object in a file, or None and the reason in `damaged`."""
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        damaged.append(f"{path}: not readable as JSON ({error})")
        return None
    if not isinstance(value, dict):
        damaged.append(f"{path}: holds {type(value).__name__}, expected a JSON object")
        return None
    return value


def _read_journal(folder: Path, damaged: list[str]) -> Iterable[dict[str, Any]]:
    for path in sorted(folder.glob("*.json")):
        value = _read_object(path, damaged)
        if value is None:
            continue
        try:
            record = _Record.model_validate(value).model_dump()
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"]))
            damaged.append(f"{path}: field {field!r}: {problem['msg'].lower()}")
            continue
        # A copy made by hand ("... (1).json") would count its trial twice.
        key = "{phase}-{round:03d}-{slot:02d}-{repeat}".format(**record)
        if path.stem == key:
            yield record
        else:
            damaged.append(f"{path}: it holds the trial {key}, so its name should be {key}.json")


def _read_policies(folder: Path, damaged: list[str]) -> Iterable[dict[str, Any]]:
    for path in sorted(folder.glob("round-*.json")):
        value = _read_object(path, damaged)
        if value is None:
            continue
        try:
            mean, std = [float(x) for x in value["mean"]], [float(x) for x in value["std"]]
            if len(mean) != len(std):
                raise ValueError(f"{len(mean)} means but {len(std)} stds")
            yield {"round": int(value["round"]), "mean": mean, "std": std}
        except (KeyError, TypeError, ValueError) as error:
            damaged.append(f"{path}: not a policy (expected round, mean, std): {error!r}")


def _read_names(path: Path, damaged: list[str]) -> Sequence[str]:
    """Names of theta's coordinates; empty where the experiment does not say."""
    value = _read_object(path, damaged) if path.exists() else {}
    names = (value or {}).get("names", [])
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    damaged.append(f"{path}: 'names' should be a list of names")
    return []


def _names_for(theta: Sequence[float], names: Sequence[str]) -> Sequence[str]:
    """`names` where they fit, numbers where they do not."""
    return names if len(names) == len(theta) else [str(index) for index in range(len(theta))]


def _trials_table(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    rows = [_row(record, names) for record in records]
    columns = [*_PLAIN, *(f"timing_{part}" for part in TIMINGS)]
    columns += [f"{split}_{metric}" for split in ("val", "test") for metric in METRICS]
    columns += ["skipped_images", "control_points", *(f"theta.{name}" for name in names)]
    extra = [column for row in rows for column in row if column not in columns]
    columns += dict.fromkeys(extra)
    kinds_of_numbers = ("timing_", "val_", "test_", "theta.", "gradient_scale.")
    numbers = [c for c in columns if c.startswith(kinds_of_numbers)]
    kinds = dict.fromkeys([*_NUMBERS, *numbers], float)
    table: pd.DataFrame = pd.DataFrame(rows, columns=columns).astype(kinds)
    return table


def _row(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    row = {name: record[name] for name in _PLAIN}
    row |= {f"timing_{part}": record["timing"].get(part) for part in TIMINGS}
    for split in ("val", "test"):
        row |= {f"{split}_{metric}": (record[split] or {}).get(metric) for metric in METRICS}
    curves = record["control_points"]
    row["skipped_images"] = len(record["skipped_images"])
    row["control_points"] = curves and json.dumps(curves, separators=(",", ":"))
    scale = record["gradient_scale"]
    if isinstance(scale, Mapping):
        row["gradient_scale"] = None
        row |= {f"gradient_scale.{head}": value for head, value in scale.items()}
    row |= {f"formula.{name}": formula for name, formula in (record["formulas"] or {}).items()}
    return row | _theta_columns(record["theta"] or [], names)


def _theta_columns(theta: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    pairs = zip(_names_for(theta, names), theta, strict=True)
    return {f"theta.{name}": value for name, value in pairs}


def _policy_table(policies: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    rows = [
        (policy["round"], name, mean, std)
        for policy in sorted(policies, key=lambda policy: policy["round"])
        for name, mean, std in zip(
            _names_for(policy["mean"], names), policy["mean"], policy["std"], strict=True
        )
    ]
    table: pd.DataFrame = pd.DataFrame(rows, columns=["round", "coordinate", "mean", "std"])
    return table


def _rejected_table(samples: Sequence[RoundOfSamples], names: Sequence[str]) -> pd.DataFrame:
    columns = ["round", "slot", "attempt", "stage", "reason", "waived"]
    rows = [
        {name: row[name] for name in columns} | _theta_columns(row["theta"], names)
        for row in rejected_rows(samples)
    ]
    table: pd.DataFrame = pd.DataFrame(rows, columns=None if rows else columns)
    return table
