import csv
import json
import logging
import math
import os

import pandas as pd
import pytest

from paploss.errors import BadConfig, BadExperiment
from search.history import load_history, shared_fingerprints, write_history_csv


def as_lists(value):
    return json.loads(json.dumps(value))


NEEDED = ["phase", "round", "slot", "repeat", "label", "theta", "status", "reward", "seconds"]


def test_trials_come_in_phase_order_whatever_the_file_system_says(experiment, searched):
    history = load_history(experiment(searched[::-1]))
    keys = history.trials[["phase", "round", "slot", "repeat"]].to_numpy().tolist()
    expected = [["baseline", 0, 0, k] for k in range(3)] + [["start", 0, 0, k] for k in range(3)]
    expected += [["search", number, slot, 0] for number in range(3) for slot in range(8)]
    expected += [["final", candidate, 0, k] for candidate in range(2) for k in range(3)]
    assert keys == expected
    assert [r["slot"] for r in history.records] == [key[2] for key in keys]


def test_a_row_holds_what_the_record_says(experiment, record):
    written = record("final", 1, repeat=2, ap=0.25, skipped_images={"a.jpg": "cut", "b.jpg": "cut"})
    history = load_history(experiment([written]))
    row = history.trials.iloc[0]
    assert (row["val_AP"], row["val_AP50"], row["test_AP75"], row["test_APs"]) == (
        0.25, 0.5, 0.125, -1.0,
    )  # fmt: skip
    assert (row["val_oLRP"], row["test_oLRP_loc"], row["test_oLRP_fp"], row["test_oLRP_fn"]) == (
        0.75, 0.25, 0.25, 0.5,
    )  # fmt: skip
    assert (row["timing_setup"], row["timing_train"], row["timing_evaluate"]) == (1.0, 9.0, 1.5)
    assert row["skipped_images"] == 2
    assert json.loads(row["control_points"]) == written["control_points"]
    assert " " not in row["control_points"]
    names = [name for name in history.trials if name.startswith("theta.")]
    assert names[:3] == ["theta.H2.x1", "theta.H2.y1", "theta.H2.x2"]
    assert names[-1] == "theta.gradient_scale" and len(names) == 41
    assert row[names].tolist() == written["theta"]


def test_metrics_that_a_record_does_not_have(experiment, record):
    """As of an experiment that is older than a metric, or of a split without large objects."""
    old = record("search", 0, 0, ap=0.25)
    old["val"] = {"AP": 0.25, "AP50": 0.5}
    trials = load_history(experiment([old, record("search", 0, 1, ap=0.3)])).trials
    assert trials["val_AP"].tolist() == [0.25, 0.3]
    assert math.isnan(trials["val_oLRP"][0]) and trials["val_oLRP"][1] == 0.7
    assert math.isnan(trials["val_APl"][0])


def test_the_baseline_has_no_theta_and_a_failed_trial_no_reward(experiment, record):
    failed = record("search", 0, 0, status="failed", ap=None, error="out of memory")
    trials = load_history(experiment([record("baseline"), failed])).trials
    assert math.isnan(trials["theta.H2.x1"][0]) and pd.isna(trials["control_points"][0])
    assert math.isnan(trials["reward"][1]) and math.isnan(trials["val_AP"][1])
    assert trials["error"][1] == "out of memory" and pd.isna(trials["error"][0])


def test_the_csv_gives_every_number_back(experiment, searched, tmp_path):
    history = load_history(experiment(searched))
    write_history_csv(history, tmp_path / "out" / "history.csv")
    with open(tmp_path / "out" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [one["label"] for one in history.records]
    for row, one in zip(rows, history.records, strict=True):
        theta = [float(x) for name, x in row.items() if name.startswith("theta.") and x]
        assert theta == (one["theta"] or [])
        assert row["reward"] == ("" if one["reward"] is None else repr(one["reward"]))
        assert json.loads(row["control_points"] or "null") == as_lists(one["control_points"])
    assert os.listdir(tmp_path / "out") == ["history.csv"]


def test_policy_is_one_row_a_round_and_coordinate(experiment):
    policy = load_history(experiment([], rounds=2)).policy
    assert list(policy.columns) == ["round", "coordinate", "mean", "std"]
    assert list(policy["round"]) == [0] * 41 + [1] * 41 + [2] * 41
    first = policy[(policy["round"] == 0) & (policy["coordinate"] == "H2.x2")]
    assert first["mean"].item() == pytest.approx(1 / 4)  # identity: c_2 = 1/5 + 1/4 (4/5) = 2/5
    assert first["std"].item() == 0.2


def test_an_experiment_without_trials_has_the_same_columns(experiment, searched, tmp_path):
    empty = load_history(experiment([])).trials
    assert len(empty) == 0
    full = load_history(experiment(searched)).trials
    assert list(empty.columns) == list(full.columns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not readable as JSON"),
        ('{"phase": "search", "rou', "not readable as JSON"),
        ("\x00" * 100, "not readable as JSON"),
        ("[1, 2]", "holds list"),
        ("{}", "phase"),
    ],
)
def test_a_damaged_file_is_named_and_left_out(experiment, searched, caplog, text, says):
    path = experiment(searched)
    (path / "journal" / "search-001-05-0.json").write_text(text)
    with caplog.at_level(logging.DEBUG):
        history = load_history(path)
    assert len(history.trials) == len(searched) - 1
    (reason,) = history.damaged
    assert reason.startswith("journal/search-001-05-0.json: ") and says in reason
    assert not caplog.records  # a running search reads again and again: who shows it says so


def test_a_file_that_is_no_text_is_left_out(experiment, searched):
    path = experiment(searched)
    (path / "journal" / "search-001-05-0.json").write_bytes(b"\xff\xfe\x80")
    assert len(load_history(path).damaged) == 1


@pytest.mark.parametrize("field", NEEDED)
def test_each_needed_field_is_needed(experiment, record, field):
    path = experiment([record("search")])
    file = path / "journal" / "search-000-00-0.json"
    value = json.loads(file.read_text())
    del value[field]
    file.write_text(json.dumps(value))
    history = load_history(path)
    assert history.records == () and f"'{field}'" in history.damaged[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("phase", "training"), ("status", "fine"), ("reward", 1.5), ("reward", math.nan),
     ("theta", "x"), ("theta", {"a": 1}), ("round", -1), ("val", 3), ("control_points", [1])],
)  # fmt: skip
def test_a_field_out_of_its_range_costs_that_record_only(experiment, record, field, value):
    path = experiment([record("search", 0, 0), record("search", 0, 1)])
    file = path / "journal" / "search-000-00-0.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    history = load_history(path)
    assert [r["slot"] for r in history.records] == [1]
    assert len(history.damaged) == 1


def test_a_copy_of_a_journal_file_does_not_count_twice(experiment, record):
    path = experiment([record("search", 0, 3)])
    text = (path / "journal" / "search-000-03-0.json").read_text()
    (path / "journal" / "search-000-03-0 (1).json").write_text(text)
    history = load_history(path)
    assert len(history.records) == 1
    assert "search-000-03-0.json" in history.damaged[0]


def test_half_written_neighbours_are_not_read(experiment, record):
    path = experiment([record("search")])
    (path / "journal" / ".search-000-01-0.json.k3j.tmp").write_text("{")
    assert load_history(path).damaged == ()


@pytest.mark.parametrize("space", ["[]", "{", '{"names": 3}', '{"names": ["a", "b"]}', None])
def test_coordinates_are_numbered_where_their_names_are_unknown(experiment, record, space):
    path = experiment([record("search")])
    (path / "space.json").unlink()
    if space is not None:
        (path / "space.json").write_text(space)
    trials = load_history(path).trials
    assert trials["theta.0"].item() == pytest.approx(1 / 5)
    assert trials["theta.40"].item() == 0.5


def test_a_damaged_policy_is_named_and_left_out(experiment):
    path = experiment([], rounds=2)
    (path / "policy" / "round-001.json").write_text('{"round": 1, "mean": [0.1], "std": []}')
    history = load_history(path)
    assert sorted(set(history.policy["round"])) == [0, 2]
    assert history.damaged[0].startswith("policy/round-001.json")


def test_a_wrong_directory_says_what_to_give(tmp_path, experiment):
    with pytest.raises(BadExperiment, match=r"not a directory.*Give the directory"):
        load_history(tmp_path / "nowhere")
    with pytest.raises(BadExperiment, match=r"has no config\.yaml"):
        load_history(tmp_path)
    path = experiment([])
    (path / "config.yaml").write_text("{")
    with pytest.raises(BadConfig, match=r"config\.yaml"):
        load_history(path)


def test_shared_fingerprints_are_those_of_different_thetas(experiment, record):
    other = [0.3] * 41
    records = [
        record("search", 0, 0, fingerprint="same"),
        record("search", 0, 1, fingerprint="same", theta=other),
        record("search", 0, 2, fingerprint="alone"),
        record("search", 1, 0, fingerprint="again"),  # the same theta twice: no wonder
        record("search", 1, 1, fingerprint="again"),
        record("search", 1, 2, fingerprint=None),
        record("search", 1, 3, fingerprint=None, theta=other),
        record("start", 0, 0, fingerprint="alone", theta=other),  # only search trials count
    ]
    found = shared_fingerprints(load_history(experiment(records)))
    assert found == {"same": ["round 0 slot 0", "round 0 slot 1"]}


def test_two_heads_have_their_columns(two_heads, tmp_path):
    history = load_history(two_heads)
    assert history.damaged == ()
    theta = [name for name in history.trials if name.startswith("theta.")]
    assert len(theta) == 2 * 40 + 2
    assert theta[0] == "theta.rpn.H2.x1" and theta[40] == "theta.rcnn.H2.x1"
    assert theta[-2:] == ["theta.rpn.gradient_scale", "theta.rcnn.gradient_scale"]
    start = history.trials[history.trials["phase"] == "start"].iloc[0]
    # The fixture: the RPN has scale 10^(2 / 2 - 1), the R-CNN half of that coordinate.
    assert start["gradient_scale.rpn"] == 1
    assert start["gradient_scale.rcnn"] == pytest.approx(10**-0.5)
    assert math.isnan(start["gradient_scale"])
    curves = json.loads(start["control_points"])
    assert curves["rpn.H1"][1] == pytest.approx([0.2, 0.2])
    assert curves["rcnn.H1"][1] == pytest.approx([0.1, 0.1])
    write_history_csv(history, tmp_path / "history.csv")
    table = pd.read_csv(tmp_path / "history.csv")
    assert (
        table["gradient_scale.rcnn"].tolist()[3:]
        == history.trials["gradient_scale.rcnn"].tolist()[3:]
    )
    assert pd.isna(table["gradient_scale.rpn"][0])  # the baseline has none


def test_one_head_has_the_columns_that_it_had(experiment, searched):
    trials = load_history(experiment(searched)).trials
    assert [name for name in trials if "gradient_scale" in name] == [
        "gradient_scale", "theta.gradient_scale",
    ]  # fmt: skip
    assert trials["gradient_scale"][3] == 1


def test_an_error_with_bytes_that_are_no_text(experiment, searched):
    """Of a file name, say, as Python gives it: half a character."""
    searched[8] |= {"error": "cannot open \udcff.png", "skipped_images": {"\udcff.png": "gone"}}
    path = experiment(searched)
    history = load_history(path)
    assert history.damaged == ()
    assert history.records[8]["error"] == "cannot open ?.png"
    write_history_csv(history, path / "history.csv")
    assert "cannot open ?.png" in (path / "history.csv").read_text()
