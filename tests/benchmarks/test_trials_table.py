"""Many experiments' trials as one table."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trials_table import (
    full_trials,
    merge,
    read_table,
    read_trials,
    rows_of,
    thetas_of,
    with_simulations,
    write_table,
)
from paploss.errors import BadExperiment
from paploss.files import write_json
from search.journal import Journal
from search.run.load import load_search


def record(phase: str, round: int, slot: int, theta: list[float] | None, **other) -> dict:
    return {
        "phase": phase, "round": round, "slot": slot, "repeat": 0, "seed": 7, "status": "ok",
        "reward": 0.125, "test_reward": None, "seconds": 9.0, "theta": theta, **other,
    }  # fmt: skip


RECORDS = [
    record("baseline", 0, 0, None),
    record("search", 0, 1, [0.25, 1 / 3]),
    record("search", 0, 0, [0.5, 0.75], status="failed", reward=None),
    record("rung", 1, 0, [0.5, 0.5], fidelity={"images": 0.5}),
]


def test_one_row_a_theta_in_the_order_of_keys():
    table = rows_of(iter(RECORDS), "a")
    assert table["phase"].tolist() == ["rung", "search", "search"]
    assert table["slot"].tolist() == [0, 0, 1]
    assert table["images"].tolist() == [0.5, 1.0, 1.0]
    np.testing.assert_array_equal(thetas_of(table)[2], [0.25, 1 / 3])


@pytest.mark.parametrize("name", ["images", "image_size", "epochs", "val_images"])
def test_a_trial_is_full_in_every_way_or_it_is_none(name):
    cheap = record("fidelity", 0, 0, [0.5, 0.5], fidelity={name: 0.5})
    assert rows_of(iter([cheap]), "a")[name].tolist() == [0.5]
    assert not len(full_trials(rows_of(iter([cheap]), "a")))
    assert len(full_trials(rows_of(iter([{**cheap, "fidelity": None}]), "a"))) == 1


def test_full_trials_are_those_that_are_evidence():
    full = full_trials(rows_of(iter(RECORDS), "a"))
    assert full[["phase", "slot"]].values.tolist() == [["search", 1]]


def test_appending_again_replaces_and_survives_the_file(tmp_path):
    path = tmp_path / "table.csv"
    write_table(merge(read_table(path), [rows_of(iter(RECORDS), "a")]), path)
    longer = [*RECORDS, record("search", 1, 0, [0.1, 0.2])]
    write_table(merge(read_table(path), [rows_of(iter(longer), "a")]), path)
    write_table(merge(read_table(path), [rows_of(iter(RECORDS), "b")]), path)
    table = read_table(path)
    assert table["source"].value_counts().to_dict() == {"a": 4, "b": 3}
    assert math.isnan(table.loc[table["status"] == "failed", "reward"].iloc[0])
    assert table["theta_1"].iloc[2] == 0.333333  # six digits


def test_what_was_simulated_is_kept(tmp_path):
    path, asked = tmp_path / "table.csv", []

    def hint(theta):
        asked.append(theta)
        return 0.5

    table = rows_of(iter(RECORDS), "a")
    write_table(with_simulations(table, read_table(path), hint), path)
    assert len(asked) == 3
    longer = rows_of(iter([*RECORDS, record("search", 1, 0, [0.1, 0.2])]), "a")
    again = with_simulations(merge(read_table(path), [longer]), read_table(path), None)
    assert again["simulated"].notna().tolist() == [True, True, True, False]
    again = with_simulations(merge(read_table(path), [table]), read_table(path), hint)
    assert len(asked) == 3 and again["simulated"].tolist() == [0.5] * 3
    np.testing.assert_array_equal(thetas_of(again), thetas_of(table))


def test_an_experiment_of_another_task_is_refused(tmp_path):
    search, task = load_search("shapes", {"schedule.epochs": 3})
    write_json(
        tmp_path / "config.yaml",  # JSON is YAML
        {**search.model_dump(mode="json"), **task.model_dump(mode="json")},
    )
    Journal(tmp_path).write(record("search", 0, 0, [0.5] * 41))
    assert len(read_trials(tmp_path, task)) == 1
    with pytest.raises(BadExperiment, match="beside --search: another schedule"):
        read_trials(tmp_path, load_search("shapes", {})[1])
    with pytest.raises(BadExperiment, match=r"it has no config\.yaml"):
        read_trials(Path(tmp_path, "nothing"), task)
