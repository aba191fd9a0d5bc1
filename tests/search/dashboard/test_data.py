import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.dashboard.data import (
    COLUMNS,
    EVENTS,
    configuration,
    history_data,
    settings_of,
    skipped_images,
    status_data,
)
from search.dashboard.values import number
from search.history import History, load_history


def data_of(path) -> dict:
    data = history_data(load_history(path))
    return json.loads(json.dumps(data, allow_nan=False))  # it survives the way to the page


def trials_of(data) -> list[dict]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in data["trials"]["rows"]]


def test_a_whole_search(experiment, searched):
    searched[8]["skipped_images"] = {"0042.jpg": "cannot identify image file"}
    path = experiment(searched)
    (path / "summary.json").write_text('{"wall_seconds": 240, "slots": 2}')
    (path / "best.yaml").write_text("{}")
    (path / searched[0]["trial_dir"]).mkdir()
    data = data_of(path)
    assert data["name"] == "shapes" and data["trained"]
    # 3 rounds of 8, and 3 repeats of baseline, start and 2 candidates
    assert data["settings"]["total"] == len(data["trials"]["rows"]) == 36
    # standings of the fixture: .140 + .01 + .002 k over k = 0, 1, 2; spread .002
    (best,) = (row for row in data["standings"] if row["winner"])
    assert (best["role"], best["test"], best["std"], best["n"]) == ("candidate", 0.152, 0.002, 3)
    assert "clearly beats the baseline Focal + GIoU" in data["verdict"]
    assert data["found"].startswith("the winner, ")
    # 36 trials of 12 s: 432 s; 240 s wall with 2 slots is 480 / 432 of the ideal
    assert data["time"]["total"] == 432
    assert data["time"]["parts"] == {"setup": 36, "train": 324, "evaluate": 54, "other": 18}
    assert data["time"]["overhead"] == {"wall": 240, "slots": 2, "ratio": round(480 / 432, 5)}
    assert data["images"] == {
        "in_all": 1,
        "rows": [["0042.jpg", "cannot identify image file", 1]],
    }
    first = trials_of(data)[0]
    assert first["folder"] == searched[0]["trial_dir"] and first["attempts"] == 1
    assert {trial["folder"] for trial in trials_of(data)[1:]} == {None}  # no such folders
    failed = [trial for trial in trials_of(data) if trial["status"] != "ok"]
    assert {trial["error"] for trial in failed} == {
        "out of memory", "the loss stayed at 1 for 51 iterations"
    }  # fmt: skip
    # A round of 8 whose slot 3 failed, one whose slot 2 diverged to 0.
    assert [row["n"] for row in data["rounds"]] == [7, 8, 8]
    assert len(data["policy"]["rounds"]) == 4 and len(data["policy"]["names"]) == 41
    assert [c["name"] for c in data["policy"]["heads"][0]["curves"]] == [
        "H1", "H2", "I1", "I2", "I3"
    ]  # fmt: skip


def test_two_heads_have_five_curves_each(two_heads):
    policy = data_of(two_heads)["policy"]
    assert [one["head"] for one in policy["heads"]] == ["rpn", "rcnn"]
    for one in policy["heads"]:
        assert [curve["name"] for curve in one["curves"]] == ["H1", "H2", "I1", "I2", "I3"]
        assert all(len(curve["mean"]) == len(curve["bands"]) == 4 for curve in one["curves"])
        assert all(curve["found"] and curve["start"] for curve in one["curves"])
    assert [one["head"] for one in policy["scales"]] == ["rpn", "rcnn"]


def test_metrics_are_averaged_over_the_repeats_that_ended_well(experiment, record):
    records = [record("baseline", repeat=k, ap=ap) for k, ap in enumerate((0.2, 0.3))]
    records.append(record("baseline", repeat=2, status="diverged", ap=None))
    records += [record("search", 0, 0, ap=0.9), record("final", 1, ap=0.5)]
    # The fixture's: AP, 2 AP, AP / 2, -1, AP, AP, 1 - AP, 1/4, AP, 1/2.
    assert data_of(experiment(records))["metrics"] == {
        "columns": ["AP", "AP50", "AP75", "APs", "APm", "APl",
                    "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn"],
        "rows": [
            ["Focal + GIoU", 0.25, 0.5, 0.125, -1, 0.25, 0.25, 0.75, 0.25, 0.25, 0.5],
            ["candidate 1", 0.5, 1, 0.25, -1, 0.5, 0.5, 0.5, 0.25, 0.5, 0.5],
        ],
    }  # fmt: skip


def test_a_metric_that_no_trial_has_takes_no_column(experiment, record):
    """As in an experiment that is older than oLRP."""
    old = record("baseline", ap=0.25)
    old["test"] = {"AP": 0.25, "APl": 0.5}
    metrics = data_of(experiment([old]))["metrics"]
    assert metrics == {"columns": ["AP", "APl"], "rows": [["Focal + GIoU", 0.25, 0.5]]}


def test_search_trials_have_no_metrics_on_test(experiment, record):
    assert data_of(experiment([record("search", 0, 0)]))["metrics"]["rows"] == []


@pytest.mark.parametrize(
    "phases", [(), ("baseline",), ("search",), ("baseline", "start", "search")]
)
def test_at_any_moment_of_a_search(experiment, searched, phases):
    data = data_of(experiment([one for one in searched if one["phase"] in phases]))
    assert "no result yet" in data["verdict"] and data["settings"]["total"] == 36
    assert bool(data["rounds"]) == ("search" in phases)
    assert data["found"].startswith("the best so far") == ("search" in phases)
    assert (data["time"] is None) == (phases == ())
    assert not data["trained"]


def test_a_search_in_which_nothing_went_well(experiment, record):
    records = [record("search", 0, slot, status="failed", ap=None) for slot in range(3)]
    data = data_of(experiment(records))
    assert data["rounds"] == [{"round": 0, "n": 0, "mean": None, "best": None, "best_so_far": None}]
    assert data["best"] == [] and data["levels"] == {}


def test_what_was_asked_for():
    config = {
        "algorithm": {"type": "ppo2", "rounds": 4, "samples": 8},
        "final": {"candidates": 4, "repeats": 3}, "seed": 5, "reward": {"AP50": 1, "oLRP": 3},
        "resources": {"cpus_per_trial": 2, "gpus_per_trial": 0.5},
        "detector": {"name": "retinanet"}, "data": {"name": "shapes"},
    }  # fmt: skip
    found = settings_of(config)
    assert found["total"] == 4 * 8 + (2 + 4) * 3
    assert (found["reward"], found["score"]) == ("0.25 AP50 + 0.75 (1 - oLRP)", "reward")
    assert (found["cpus"], found["gpus"], found["seed"]) == (2, 0.5, 5)
    assert (found["detector"], found["data"]) == ("retinanet", "shapes")
    assert settings_of({})["total"] is None and settings_of({"algorithm": "x"})["rounds"] is None


def test_configurations_are_flat():
    flat = configuration({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None, "f": {}, "g": "x" * 600})
    assert flat == {
        "a.b": "1", "a.c": '[1, {"d": 2}]', "e": "null", "f": "{}",
        "g": "x" * 500 + " … (100 more characters)",
    }  # fmt: skip


def test_many_skipped_images_are_counted(record):
    records = [record("search", skipped_images={f"{k:03d}.jpg": "cut" for k in range(300)})] * 2
    found = skipped_images(records)
    assert found["in_all"] == 300 and len(found["rows"]) == 200
    assert found["rows"][0] == ["000.jpg", "cut", 2]


def test_a_long_error_is_cut(experiment, record):
    records = [record("search", status="failed", ap=None, error="e" * 100_000)]
    assert len(json.dumps(data_of(experiment(records)))) < 60_000


def test_one_fingerprint_for_two_thetas_is_told(experiment, record):
    thetas = ([0.2] * 41, [0.3] * 41)
    records = [record("search", 0, k, theta=t, fingerprint="f00d") for k, t in enumerate(thetas)]
    found = data_of(experiment(records))["fingerprints"]
    assert found == [["f00d", ["round 0 slot 0", "round 0 slot 1"]]]


def test_the_status_and_the_latest_events(experiment, record):
    path = experiment([record("baseline")])
    assert status_data(path) == {"status": None, "events": [], "events_in_all": 0}
    status = {"state": "running", "updated": 2e9, "started": 1e9, "slots": 3, "total_trials": 9}
    (path / "status.json").write_text(json.dumps(status))
    lines = [json.dumps({"time": k, "text": f"event {k}"}) for k in range(EVENTS + 5)]
    (path / "events.jsonl").write_text("\n".join([*lines, '{"time": 99, "te']))
    found = json.loads(json.dumps(status_data(path), allow_nan=False))
    assert found["status"]["slots"] == 3 and found["status"]["state"] == "running"
    assert found["events_in_all"] == EVENTS + 5 and len(found["events"]) == EVENTS
    assert found["events"][0] == [EVENTS + 4, f"event {EVENTS + 4}"]


def test_a_thousand_trials_are_small_and_quick(experiment, record):
    """2 MB of JSON at most; how quick is said in the docs, and no test decides by the clock."""
    path = experiment(
        [record("search", k // 8, k % 8, theta=[0.5] * 41, fingerprint=f"{k:012x}",
                node="10.0.0.12", trial_dir=f"search-{k:08d}-0123abcd") for k in range(1000)],
        rounds=125,
    )  # fmt: skip
    data = data_of(path)
    assert len(data["trials"]["rows"]) == 1000 and len(data["policy"]["rounds"]) == 126
    assert len(json.dumps(data, separators=(",", ":"))) < 2_000_000


@pytest.mark.parametrize(
    ("value", "kept"),
    [(0.123456, 0.12346), (1, 1.0), (None, None), (math.nan, None), (math.inf, None), (True, None),
     ("1", None), (10**400, None)],
)  # fmt: skip
def test_numbers_that_json_can_hold(value, kept):
    assert number(value) == kept


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


SECTION = st.dictionaries(
    st.sampled_from(
        ["rounds", "samples", "name", "type", "candidates", "repeats", "gpus_per_trial"]
    ),
    WILD,
)
SECTIONS = ["algorithm", "final", "resources", "detector", "data", "seed", "name", "reward"]


@given(st.dictionaries(st.sampled_from(SECTIONS), WILD | SECTION))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_configuration_can_be_shown(tmp_path_factory, config):
    path = _empty(tmp_path_factory)
    empty = load_history(path)
    history = History(path, config, (), empty.trials, empty.policy)
    json.dumps([history_data(history), configuration(config)], allow_nan=False)


def _empty(factory):
    path = factory.getbasetemp() / "empty"
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text("{}")
    return path
