"""A whole search with Ray and real trainings, and what a user does with what it leaves."""

import csv
import json
import os
import stat

import numpy as np
import pytest

from loss.by_head import family_of
from paploss.files import read_json, read_yaml
from search import cli
from search.history import load_history
from search.standings import standings, winner
from trainers.coco_eval import DETECTIONS
from trainers.config import TaskConfig
from trainers.export import read_training_yaml

pytestmark = pytest.mark.slow

KEYS = [
    "baseline-000-00-0", "start-000-00-0",
    "search-000-00-0", "search-000-01-0", "search-000-02-0",
    "search-001-00-0", "search-001-01-0", "search-001-02-0",
    "final-000-00-0", "final-001-00-0",
]  # fmt: skip


@pytest.fixture
def path(reference):
    assert reference.code == 0, reference.output
    return reference.experiment.path


@pytest.fixture
def run(capsys, handlers, monkeypatch):
    """Runs a command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        try:
            code = cli.run_safely(lambda: cli.app(args=[*map(str, arguments)]))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def files(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


# --- what it did --------------------------------------------------------------------------------


def test_it_runs_to_its_end_and_says_so(reference):
    assert reference.code == 0, reference.output
    assert sorted(reference.experiment.records) == sorted(KEYS)
    assert "10/10 trials" in reference.output
    assert f"paploss train {reference.experiment.path / 'best.yaml'}" in reference.output
    assert "Traceback" not in reference.output


def test_a_log_file_gets_plain_lines(reference):
    assert "\x1b" not in reference.output
    assert [k for k in ("baseline", "start", "round 1 slot 2", "candidate 1") if k not in
            reference.output] == []  # fmt: skip


def test_every_trial_ended_well_and_trained_on_its_own_theta(reference):
    records = reference.experiment.records
    assert {record["status"] for record in records.values()} == {"ok"}
    assert {record["iterations"] for record in records.values()} == {2}  # 16 images by 8
    assert {record["attempt"] for record in records.values()} == {0}
    searched = [r["fingerprint"] for key, r in records.items() if key.startswith("search")]
    assert len(set(searched)) == 6
    # The same theta, trained and proved again in the final race.
    second = records["final-001-00-0"]
    sample = max((r for r in records.values() if r["phase"] == "search"), key=lambda r: r["reward"])
    assert second["theta"] == sample["theta"]
    assert second["fingerprint"] == sample["fingerprint"]
    assert second["seed"] != sample["seed"]


def test_rewards_come_from_val_and_the_race_is_run_on_test(reference):
    for record in reference.experiment.records.values():
        assert record["reward"] == record["val"]["AP"]
        assert 0 <= record["reward"] <= 1
        assert (record["test"] is None) == (record["phase"] == "search")
        assert record["test_reward"] == (record["test"] or {"AP": None})["AP"]
    assert any(record["reward"] > 0 for record in reference.experiment.records.values())


def test_the_race_has_the_seed_of_baseline_and_start(reference):
    records = reference.experiment.records
    race = [r["seed"] for r in records.values() if r["phase"] != "search"]
    searched = [r["seed"] for r in records.values() if r["phase"] == "search"]
    assert len(set(race)) == 1
    assert len(set(searched)) == 6
    assert not set(race) & set(searched)


# --- side by side -------------------------------------------------------------------------------


def most_at_once(records):
    """The largest number of trials that ran at one moment."""
    ends = [(r["started"], 1) for r in records] + [(r["finished"], -1) for r in records]
    running = np.cumsum([step for _, step in sorted(ends)])
    return int(running.max())


def test_trials_of_a_round_run_side_by_side(reference):
    records = list(reference.experiment.records.values())
    slots = read_json(reference.experiment.path / "summary.json")["slots"]
    assert 1 <= slots <= os.cpu_count()
    if slots < 2:
        pytest.skip("one slot")
    assert most_at_once(records) <= slots
    # Also in a later round, and in the race: no slot is lost when a round ends.
    for phase, round in (("search", 0), ("search", 1)):
        of_round = [r for r in records if (r["phase"], r["round"]) == (phase, round)]
        assert most_at_once(of_round) == min(slots, 3), f"{phase} {round}"
    assert most_at_once([r for r in records if r["phase"] == "final"]) == 2


def test_no_process_is_left(reference):
    assert reference.left == []


# --- what it left -------------------------------------------------------------------------------


def test_tunes_own_files_of_every_trial(path, reference):
    names = read_json(path / "space.json")["names"]
    for key, record in reference.experiment.records.items():
        folder = path / record["trial_dir"]
        assert record["trial_dir"] == f"{key}-{record['trial_id']}"
        params = json.loads((folder / "params.json").read_text())
        assert params["theta"] == dict(zip(names, record["theta"] or [], strict=False))
        assert params["seed"] == record["seed"]
        (result,) = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        assert result["reward"] == record["reward"]
        (progress,) = csv.DictReader((folder / "progress.csv").open())
        assert float(progress["reward"]) == record["reward"]
        assert list(folder.glob("events.out.tfevents.*"))
        assert (folder / "train.log").stat().st_size > 0


def test_the_experiments_files(path):
    names = {p.name for p in path.iterdir()}
    assert names >= {
        "config.yaml", "space.json", "journal", "policy", "history.csv", "best.yaml",
        "report.html", "summary.json", "tensorboard",
    }  # fmt: skip
    assert list(path.glob("experiment_state-*.json"))
    assert list((path / "tensorboard").glob("events.out.tfevents.*"))
    assert "<html" in (path / "report.html").read_text()[:500].lower()
    summary = read_json(path / "summary.json")
    assert summary["wall_seconds"] > 0


def test_the_policy_of_every_round(path, reference):
    policies = [read_json(path / "policy" / f"round-{n:03d}.json") for n in range(3)]
    space = read_json(path / "space.json")
    assert len(list((path / "policy").iterdir())) == 3
    np.testing.assert_allclose(policies[0]["mean"], space["start"], rtol=1e-12)
    assert len(space["names"]) == len(policies[0]["std"]) == 41
    assert policies[0]["std"][0] == 0.2
    assert policies[1]["std"][0] == 0.1  # linear over two rounds
    assert policies[0]["mean"] != policies[1]["mean"] != policies[2]["mean"]
    mean_raced = reference.experiment.records["final-000-00-0"]["theta"]
    assert mean_raced == policies[2]["mean"]


def test_the_history_is_one_table(path, reference):
    with (path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = reference.experiment.records
    assert len(rows) == len(records)
    for row in rows:
        key = f"{row['phase']}-{int(row['round']):03d}-{int(row['slot']):02d}-{row['repeat']}"
        assert float(row["reward"]) == records[key]["reward"]
        assert row["fingerprint"] == records[key]["fingerprint"]
        if records[key]["theta"]:
            assert float(row["theta.gradient_scale"]) == records[key]["theta"][-1]


def test_best_yaml_is_the_winner_of_the_race(path, reference):
    best = read_training_yaml(path / "best.yaml")
    table = standings(load_history(path))
    first = winner(table)
    finals = [r for k, r in sorted(reference.experiment.records.items()) if r["phase"] == "final"]
    chosen = max(finals, key=lambda record: record["val"]["AP"])
    assert (first.mean_val, first.mean_test) == (chosen["val"]["AP"], chosen["test"]["AP"])
    assert best.found_by["test_mean"] == first.mean_test
    task = TaskConfig.model_validate(
        {k: v for k, v in read_yaml(path / "config.yaml").items() if k in TaskConfig.model_fields}
    )
    assert best.criterion == family_of(task.criterion).settings(first.theta)
    assert best.detector == task.detector
    assert best.data == task.data


def test_the_winners_score_is_confirmed(path, reference):
    """By pycocotools, from the detections that candidates, and no other trials, keep."""
    told = read_json(path / "summary.json")["confirmation"]
    assert told["agrees"] and told["by"] == "pycocotools"
    best = winner(standings(load_history(path)))
    assert told["found"]["AP"] == pytest.approx(best.mean_test, abs=1e-9)  # one repeat
    assert f"AP {best.mean_test:.4f} confirmed by pycocotools" in reference.output
    assert "confirmed by pycocotools" in (path / "report.html").read_text()
    kept = {folder.parent.name for folder in path.glob(f"*/{DETECTIONS}")}
    records = reference.experiment.records.values()
    assert kept == {r["trial_dir"] for r in records if r["phase"] == "final"}


def test_the_token_is_the_owners(reference, home):
    token = home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


# --- what comes after ---------------------------------------------------------------------------


def test_resuming_what_is_finished_does_nothing(run, path):
    before = files(path)
    for _ in range(2):
        code, out, _ = run("resume", path)
        assert code == 0
        assert "paploss train" in out
    after = files(path)
    assert after.keys() == before.keys()
    dated = {path / "report.html", path / ".lock"}  # these say when they were written
    assert {p: content for p, (_, content) in after.items() if p not in dated} == {
        p: content for p, (_, content) in before.items() if p not in dated
    }
    untouched = [p for p in before if p.parent.name == "journal"]
    assert {p: after[p] for p in untouched} == {p: before[p] for p in untouched}


def test_a_second_search_of_that_name_is_refused(run, path, search_yaml):
    before = files(path)
    code, _, err = run("search", search_yaml, "--set", f"storage={path.parent}")
    assert code == 2
    assert "exists already" in err and f"paploss resume {path}" in err
    assert files(path) == before


def test_or_resume_takes_it_up(run, path, search_yaml):
    records = {p: s for p, s in files(path).items() if p.parent.name == "journal"}
    code, out, _ = run("search", search_yaml, "--set", f"storage={path.parent}", "--or-resume")
    assert code == 0
    assert "paploss train" in out
    assert {p: s for p, s in files(path).items() if p.parent.name == "journal"} == records


def test_show(run, path):
    code, out, _ = run("show", path)
    assert code == 0
    assert "10 finished trials" in out
    assert "WARNING" not in out
    for label in ("Focal + GIoU", "start", "policy mean"):
        assert label in out


def test_export_of_the_winner(run, path, tmp_path):
    code, out, _ = run("export", path, "--out", tmp_path / "mine.yaml")
    assert code == 0
    assert f"paploss train {tmp_path / 'mine.yaml'}" in out
    assert read_yaml(tmp_path / "mine.yaml") == read_yaml(path / "best.yaml")


def test_export_of_a_trial(run, path, tmp_path, reference):
    out = tmp_path / "one.yaml"
    assert run("export", path, "--trial", "search-001-02-0", "--out", out)[0] == 0
    one = read_training_yaml(out)
    record = reference.experiment.records["search-001-02-0"]
    assert one.criterion["control_points"] == record["control_points"]
    assert one.found_by["reward"] == record["reward"]


def test_export_of_no_trial(run, path, tmp_path):
    code, _, err = run("export", path, "--trial", "search-7", "--out", tmp_path / "one.yaml")
    assert code == 2
    assert err.startswith("error: ") and "search-7" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["file/best.yaml", "folder"])
def test_export_to_where_nothing_can_be_written(run, path, tmp_path, where):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    code, _, err = run("export", path, "--out", tmp_path / where)
    assert code == 2
    assert err.startswith("error: ") and str(tmp_path / where) in err


def test_best_yaml_trains_from_nothing_else(run, path, tmp_path, reference):
    best = tmp_path / "best.yaml"
    best.write_bytes((path / "best.yaml").read_bytes())
    code, out, _ = run("train", best, "--device", "cpu")
    assert code == 0
    results = read_json(tmp_path / "training" / "results.json")
    records = reference.experiment.records.values()
    finals = (r for r in records if r["phase"] == "final")
    best_of_race = max(finals, key=lambda r: r["val"]["AP"])
    # No other schedule was given and one thread is what the trial had: it is the trial again.
    assert results["fingerprint"] == best_of_race["fingerprint"]
    assert set(results["test"]) == set(best_of_race["test"])
    assert f"{results['test']['AP']:.4f}" in out
