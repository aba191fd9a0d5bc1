"""Readers of experiments, and of the arrays and weights in them."""

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from rich.console import Console

from paploss.errors import UserError
from tests.safety.inputs import spoilt_bytes, spoilt_json, spoilt_yaml
from tests.safety.reader import Reader, empty_folder
from tests.safety.settings_readers import complete_search
from tests.search.conftest import whole_search, write_experiment


@cache
def experiment_files() -> dict[str, bytes]:
    """{name: content} of a whole small experiment."""
    with empty_folder() as folder:
        records = [r for r in whole_search(rounds=2, samples=4) if r["repeat"] < 2]
        write_experiment(folder, records, rounds=2)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    files["config.yaml"] = complete_search()
    files["summary.json"] = b'{"wall_seconds": 12.5, "slots": 2, "versions": {"torch": "2"}}'
    files["status.json"] = json.dumps(
        {"state": "running", "problem": None, "updated": 1.7e9, "started": 1.7e9, "host": "h",
         "pid": 3, "slots": 2, "nodes": [{"address": "a", "cpus": 2.0, "gpus": 0.0, "alive": True}],
         "total_trials": 20, "running": [{"phase": "search", "round": 0, "slot": 1, "repeat": 0,
         "started": 1.7e9, "folder": "x"}], "pending": 1, "left_seconds": 3.5}
    ).encode()  # fmt: skip
    files["events.jsonl"] = b'{"time": 1700000000.0, "text": "resumed"}\n{"time": 17000'
    return files


def _spoilt_experiments() -> st.SearchStrategy[dict[str, bytes]]:
    """A whole experiment with one file spoilt."""
    files = experiment_files()
    names = st.sampled_from(
        [
            *("journal/search-000-01-0.json", "journal/final-001-00-0.json", "config.yaml"),
            *("journal/baseline-000-00-0.json", "policy/round-001.json", "space.json"),
            *("summary.json", "status.json", "events.jsonl"),
        ]
    )

    def spoil(name: str) -> st.SearchStrategy[dict[str, bytes]]:
        if name.endswith(".json"):
            made = spoilt_json([files[name]])
        elif name.endswith(".yaml"):
            made = spoilt_yaml([files[name]])
        else:
            made = spoilt_bytes([files[name]])
        return made.map(lambda content: {**files, name: content})

    return names.flatmap(spoil)


def _write(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _history(files: dict[str, bytes], folder: Path) -> None:
    from search.history import load_history, shared_fingerprints, write_history_csv
    from search.result import print_result
    from search.status import read_events, read_status

    _write(files, folder)
    history = load_history(folder)
    shared_fingerprints(history)
    write_history_csv(history, folder / "history.csv")
    print_result(history, Console(file=io.StringIO()), rounds=True)
    read_status(folder), read_events(folder)


def _pages(files: dict[str, bytes], folder: Path) -> None:
    from search.dashboard.data import history_data, status_data
    from search.history import load_history
    from search.report import render_html

    _write(files, folder)
    history = load_history(folder)
    render_html(history)
    # What a browser is sent has to be JSON, in which there is no NaN.
    json.dumps([history_data(history), status_data(folder)], allow_nan=False)


def _resumed(files: dict[str, bytes], folder: Path) -> None:
    from search.run.experiment import open_experiment, plan_of
    from search.run.results import export_training

    _write(files, folder)
    plan = plan_of(folder, *open_experiment(folder))
    plan.retry_failed_round()
    assert plan.finished or plan.problem or plan.open
    export_training(folder, folder / "best.yaml")


def _checkpoint(content: bytes, folder: Path) -> None:
    from trainers.mmdet.checkpoints import load_weights

    (folder / "a.pth").write_bytes(content)
    load_weights(folder / "a.pth")


def _checkpoints() -> st.SearchStrategy[bytes]:
    files = []
    for archive in (True, False):
        with io.BytesIO() as file:
            state = {"state_dict": {"a": torch.zeros(2)}, "meta": {"epoch": np.float64(3)}}
            torch.save(state, file, _use_new_zipfile_serialization=archive)
            files.append(file.getvalue())
    return spoilt_bytes(files)


def _detections(content: bytes, folder: Path) -> None:
    from trainers.coco_eval import load_detections

    (folder / "detections.npz").write_bytes(content)
    try:
        load_detections(folder / "detections.npz")
    except (OSError, ValueError) as error:  # what it says that it raises; the caller writes it down
        raise UserError(f"{type(error).__name__}: {error}") from error


def _detection_files() -> st.SearchStrategy[bytes]:
    with io.BytesIO() as file:
        np.savez_compressed(file, rows=np.zeros((3, 7)), images=np.arange(3))
        good = file.getvalue()
    with io.BytesIO() as file:
        np.savez_compressed(file, rows=np.array([{}], dtype=object), images=np.arange(3))
        pickled = file.getvalue()
    return spoilt_bytes([good, pickled])


READERS = (
    Reader("history", _spoilt_experiments, _history, 0.3),
    Reader("pages", _spoilt_experiments, _pages, 0.15),
    Reader("resumed", _spoilt_experiments, _resumed, 0.3),
    Reader("checkpoint", _checkpoints, _checkpoint),
    Reader("detections", _detection_files, _detections),
)
