"""What is made of the measurements of fidelities.py; the measurements are ordinary trials."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks.fidelities import FIDELITIES, chosen, read_lines, records_of, spec_of
from benchmarks.fidelity_report import figure, report, spearman
from search.journal import Journal


def lines_of(rewards, early):
    """Of thetas 0, 1, ...: `rewards` by fidelity and the `early` scores of the full trial."""
    return [
        {
            "source": str(k), "fidelity": name, "reward": float(reward),
            "cpu": {"cheap": 2.0}.get(name, 8.0),
            "early": [{"at": 0.5, "images": 20, "score": float(early[k]), "cpu": 0.4}]
            if name == "full" else [],
        }
        for name, values in rewards.items() for k, reward in enumerate(values)
    ]  # fmt: skip


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    for a, b in (
        (rng.random(9), rng.random(9)),
        (rng.integers(3, size=20), rng.integers(3, size=20)),
    ):
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_a_report(capsys, tmp_path):
    """Of 16 thetas a cheap trial turns the order round, and the early score is right half-way."""
    order = np.arange(16) / 100
    rewards = {"full": order, "full again": order, "cheap": order[::-1]}
    early = np.where(order > 0.07, 1.0, 0.0)
    thetas = [{"source": str(k), "reward": float(order[k])} for k in range(16)]
    rows = report([*thetas, {"source": "not yet", "reward": 0.0}], lines_of(rewards, early))
    ceiling, cheap, look, other = rows
    assert (ceiling.kind, ceiling.rank[0], ceiling.kept) == ("ceiling", pytest.approx(1), 1)
    assert (cheap.cost, cheap.rank[0], cheap.kept) == (0.25, pytest.approx(-1), 0)
    assert look.cost == other.cost == pytest.approx(0.5 + 0.4 / 8)
    assert look.rank[0] == pytest.approx(stats.spearmanr(early, order).statistic)
    assert look.rank[1] < look.rank[0] < look.rank[2]
    assert np.isnan(look.best_half[0]), "there all are alike"
    assert look.kept == 1
    said = capsys.readouterr().out
    assert "16 thetas; a full trial takes 8.0 s" in said
    assert "| cheap | 0.25 | -1.00 (-1.00 to -1.00) |" in said
    assert "| cheap first, one in 4 in full |" in said
    figure(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_thetas_are_no_report():
    lines = lines_of({"full": np.arange(7), "full again": np.arange(7)}, np.ones(7))
    with pytest.raises(SystemExit, match="7 thetas were trained at every fidelity; expected 8"):
        report([{"source": str(k), "reward": 0.0} for k in range(9)], lines)


def test_thetas_are_search_trials_that_say_something(tmp_path):
    journal = Journal(tmp_path / "toy_s0")
    statuses = ["ok", "diverged", "failed", "stopped", "ok"]
    for slot, status in enumerate(statuses):
        record = {"phase": "search", "round": 0, "slot": slot, "repeat": 0, "status": status}
        journal.write({**record, "theta": [slot / 10], "reward": 0.1})
    journal.write({"phase": "final", "round": 0, "slot": 0, "repeat": 0, "status": "ok"})
    found = chosen([tmp_path / "toy_s0"], 3)
    assert {trial["theta"][0] for trial in found} == {0.0, 0.1, 0.4}
    assert found == chosen([tmp_path / "toy_s0"], 3)
    with pytest.raises(SystemExit, match="4 thetas were asked for; the experiments have 3 yet"):
        chosen([tmp_path / "toy_s0"], 4)


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert [*read_lines(path)] == []
    path.write_text(json.dumps({"a": 1}) + '\n{"a": ')
    assert [*read_lines(path)] == [{"a": 1}]


def test_every_trial_has_a_seed_of_its_own(shapes_task):
    trial = {"source": "toy_s0/search-000-00", "theta": [0.5] * 41}
    specs = {name: spec_of(shapes_task, trial, name) for name in FIDELITIES}
    assert len({spec.seed for spec in specs.values()}) == len(FIDELITIES)
    assert {name: spec.fidelity for name, spec in specs.items()} == FIDELITIES
    assert specs["full"].theta == (0.5,) * 41


@pytest.fixture
def shapes_task(tmp_path):
    """As an experiment's config.yaml holds it; nothing of it is read."""
    split = {"annotations": "x.json", "images": "x"}
    return {
        "detector": {"name": "any", "model": {}},
        "data": {"name": "any", "classes": ["a"], "train": split, "val": split, "test": split},
        "criterion": {"type": "parameterized_ap"},
        "schedule": {},
        "resources": {"gpus_per_trial": 0.0, "cpus_per_trial": 1.0},
    }


def test_runs_are_records_of_a_journal(tmp_path):
    trials = [{"source": name, "theta": [0.25, 0.5]} for name in ("a", "b")]
    header = {"chosen": trials, "fidelities": {"full": None, "cheap": {"epochs": 0.5}}}
    timing = {"setup": 0.5, "train": 2.0}
    run = {"source": "b", "fidelity": "cheap", "status": "ok", "reward": 0.125, "timing": timing}
    failed = {**run, "fidelity": "full", "status": "failed", "reward": None, "timing": None}
    path = tmp_path / "fidelities.jsonl"
    path.write_text("\n".join(map(json.dumps, (header, run, failed))))
    cheap, full = records_of(path)
    assert [cheap[key] for key in ("phase", "round", "slot", "repeat")] == ["fidelity", 1, 1, 0]
    assert (cheap["theta"], cheap["fidelity"]) == ([0.25, 0.5], {"epochs": 0.5})
    assert (cheap["seconds"], cheap["reward"]) == (2.5, 0.125)
    assert (full["slot"], full["status"], full["reward"]) == (0, "failed", None)
    assert full["seed"] != cheap["seed"]
