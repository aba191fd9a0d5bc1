"""Rows of an ablation resolved, checked and continued, as far as no cluster is needed."""

import copy
import fcntl
import io

import pytest
import yaml
from rich.console import Console

from paploss.configs import config_folder, find
from paploss.errors import BadConfig, BadData, BadExperiment
from paploss.files import read_yaml
from search import cli
from search.ablation import Runs, load_group
from search.run import ablate as runner
from search.run.ablate import ablate
from search.run.ablate_rows import (
    Fixed,
    Searched,
    check_rows,
    check_unchanged,
    keep_settings,
    resolve,
    split_overrides,
)
from search.run.experiment import create_experiment
from search.seeds import trial_seed
from trainers.datasets.shapes import draw_shapes

GROUPS = sorted(path.stem for path in (config_folder() / "ablations").glob("*.yaml"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, train=4, val=2, test=2, size=64)
    return folder


@pytest.fixture
def group_yaml(drawn, tmp_path):
    """Writes a group of two rows beside its training and search."""

    def write(**changes):
        common = {
            "detector": "retinanet_r18_small",
            "data": str(drawn / "dataset.yaml"),
            "schedule": {"image_size": [64, 64]},
        }
        files = {
            "training": {**common, "criterion": {"type": "focal_giou"}},
            "search": {**common, "name": "s", "criterion": {"type": "parameterized_ap"}},
            "group": {
                "name": "g",
                "training": str(tmp_path / "training.yaml"),
                "search": str(tmp_path / "search.yaml"),
                "rows": [
                    {"label": "one", "set": {"schedule.epochs": 2}},
                    {"label": "two", "search": {"algorithm.type": "random"}},
                ],
                **changes,
            },
        }
        for name, values in files.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
        return str(tmp_path / "group.yaml")

    return write


def resolved(path, storage, **overrides):
    group, _ = load_group(path)
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve(group, group.rows, storage, changes)


# --- what rows stand for ------------------------------------------------------------------------


@pytest.mark.parametrize("name", GROUPS)
def test_every_row_of_a_shipped_group_can_be_resolved(name, tmp_path):
    rows = resolved(name, tmp_path)
    assert len(rows) == len(load_group(name)[0].rows)
    for row in rows:
        if isinstance(row, Searched):
            assert row.config.storage / row.config.name == tmp_path / row.row.folder


def test_rows_of_the_group_for_this_machine_train_alike(tmp_path):
    """Only what a row is about may differ: same detector, data and schedule."""
    rows = resolved("shapes", tmp_path)
    parts = [row.spec if isinstance(row, Fixed) else row.task for row in rows]
    for name in ("detector", "data", "schedule"):
        assert {getattr(part, name).model_dump_json() for part in parts} == {
            getattr(parts[0], name).model_dump_json()
        }
    criteria = [row.spec.criterion for row in rows if isinstance(row, Fixed)]
    assert all(one not in criteria[:k] for k, one in enumerate(criteria))
    assert all(row.trials >= 32 for row in rows if isinstance(row, Searched))


def test_a_fixed_loss_and_a_search(group_yaml, tmp_path):
    one, two = resolved(group_yaml(seed=5), tmp_path, schedule__batch_size=4)
    assert isinstance(one, Fixed)
    assert one.spec.schedule.epochs == 2
    assert one.spec.schedule.batch_size == 4
    assert one.spec.theta is None
    assert set(one.spec.evaluate) == {"val", "test"}
    assert isinstance(two, Searched)
    assert (two.config.algorithm.type, two.config.seed) == ("random", 5)
    assert two.task.schedule.batch_size == 4
    assert two.retrain is None


def test_what_a_search_finds_is_trained_like_the_others(group_yaml, tmp_path):
    _, two = resolved(group_yaml(retrain=True), tmp_path)
    found = two.found({"type": "ndcg"})
    assert found.spec.criterion == {"type": "ndcg"}
    assert found.spec.schedule.epochs == 1
    assert found.row.label == "two"


def test_overrides_go_where_there_is_such_a_key(group_yaml, tmp_path):
    own, below = split_overrides(
        {"seeds": 2, "resources.cpus_per_trial": 2, "algorithm.rounds": 1, "schedule.epochs": 3}
    )
    assert own == {"seeds": 2, "resources.cpus_per_trial": 2}
    assert below == {"algorithm.rounds": 1, "schedule.epochs": 3}
    one, two = resolve(load_group(group_yaml())[0], load_group(group_yaml())[0].rows, tmp_path,
                       below)  # fmt: skip
    # From the command line for all, over what rows say.
    assert one.spec.schedule.epochs == two.task.schedule.epochs == 3
    assert two.config.algorithm.rounds == 1
    for key in ("sedes", "shedule.epochs", "name"):
        with pytest.raises(BadConfig, match=f"--set {key}: unknown key"):
            split_overrides({key: 1})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"set": {"schedule.epoch": 1}}, "row 'x': .*did you mean 'epochs'"),
        ({"set": {"criterion": "parameterised_ap"}}, "row 'x': .*no file 'parameterised_ap'"),
        ({"search": {"algorithm.round": 1}}, "row 'x': .*did you mean 'rounds'"),
        ({"training": "nothing"}, "row 'x': no file 'nothing'"),
    ],
)
def test_a_row_that_is_wrong_is_named(group_yaml, tmp_path, row, said):
    with pytest.raises(BadConfig, match=f"(?s){said}"):
        resolved(group_yaml(rows=[{"label": "x", **row}]), tmp_path)


# --- before anything is run ---------------------------------------------------------------------


def test_sound_rows_are_described_once(group_yaml, tmp_path):
    lines = list(check_rows(resolved(group_yaml(), tmp_path)))
    assert len([line for line in lines if line.startswith("shapes: 3 classes")]) == 1
    assert any("trains on its theta" in line for line in lines)


def test_nothing_is_run_or_written_if_one_row_cannot(group_yaml, tmp_path, drawn):
    detector = copy.deepcopy(read_yaml(find("detectors", "retinanet_r18_small")))
    detector["model"]["neck"]["type"] = "NoNeck"
    rows = [{"label": "sound"}, {"label": "broken", "set": {"detector": detector}}]
    with pytest.raises(BadConfig, match=r"row 'broken': .*NoNeck"):
        ablate(group_yaml(rows=rows), tmp_path / "out", console=Console(file=io.StringIO()))
    data = {**read_yaml(drawn / "dataset.yaml"), "val": {"annotations": "a", "images": "b"}}
    with pytest.raises(BadData, match="row 'broken': "):
        ablate(group_yaml(rows=[{"label": "broken", "set": {"data": data}}]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_refused(group_yaml, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BadExperiment, match="another process is running"):
            ablate(group_yaml(), out, only=["one"], console=Console(file=io.StringIO()))


# --- going on -----------------------------------------------------------------------------------


def test_results_of_other_settings_are_not_mixed_in(group_yaml, tmp_path):
    one, _ = resolved(group_yaml(), tmp_path)
    check_unchanged(one, tmp_path / "one")  # nothing there yet
    keep_settings(one, tmp_path / "one")
    check_unchanged(one, tmp_path / "one")
    longer, _ = resolved(group_yaml(), tmp_path, schedule__epochs=7)
    with pytest.raises(BadExperiment, match=r"row 'one' .*schedule\.epochs was 2, is 7 now.*--out"):
        check_unchanged(longer, tmp_path / "one")


def test_a_changed_row_is_found_before_others_are_run(group_yaml, tmp_path):
    one, _ = resolved(group_yaml(), tmp_path)
    keep_settings(one, tmp_path / "out" / "rows" / "one")
    with pytest.raises(BadExperiment, match="row 'one' has results of other settings"):
        ablate(group_yaml(), tmp_path / "out", only=["two"], overrides={"schedule.epochs": 9})
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_search_of_other_settings_is_not_continued(group_yaml, tmp_path):
    _, two = resolved(group_yaml(), tmp_path)
    folder = create_experiment(two.config, two.task)
    check_unchanged(two, folder)
    _, elsewhere = resolved(group_yaml(resources={"cpus_per_trial": 2}), tmp_path / "elsewhere")
    check_unchanged(elsewhere, folder)
    _, other = resolved(group_yaml(), tmp_path, algorithm__rounds=3)
    with pytest.raises(BadExperiment, match=r"algorithm\.rounds was 40, is 3 now"):
        check_unchanged(other, folder)


@pytest.fixture
def session(group_yaml, tmp_path):
    group, _ = load_group(group_yaml(seeds=3, seed=4))
    return runner._Session(group, tmp_path / "out", Console(file=io.StringIO(), width=200))


def test_what_is_missing_is_run_and_what_failed_again(session, group_yaml, tmp_path):
    one, _ = resolved(group_yaml(), tmp_path)
    runs = Runs(session.trained(one.row))
    runs.write(0, {"status": "ok"})
    runs.write(1, {"status": "failed"})
    jobs = list(session._missing(one))
    assert [job.repeat for job in jobs] == [1, 2]
    assert [record["repeat"] for record in runs.records()] == [0]
    # The seeds of a final race, so that searched and fixed rows meet the same luck.
    assert [job.spec.seed for job in jobs] == [trial_seed(4, "final", 9, 0, k) for k in (1, 2)]
    assert jobs[0].spec.criterion == {"type": "focal_giou"}
    runs.write(2, {"status": "diverged"})
    assert [job.repeat for job in session._missing(one)] == [1]


def test_the_line_of_a_search_is_its_winner_on_test(session, group_yaml, experiment, searched):
    _, two = resolved(group_yaml(), session.folder / "rows")
    folder = experiment(searched)
    (session.folder / "rows").mkdir(parents=True)
    folder.rename(session.folder / "rows" / "two")
    # Candidate 1 has AP .150, .152, .154 on test, candidate 0 a hundredth less.
    assert [record["test"]["AP"] for record in session._records(two)] == pytest.approx(
        [0.150, 0.152, 0.154]
    )
    session.write_table([two])
    said = session.console.file.getvalue()
    assert "two (one search of 320 trials)" in said
    assert "0.1520" in said


def test_a_search_without_a_result_is_no_line(session, group_yaml, tmp_path):
    _, two = resolved(group_yaml(), session.folder / "rows")
    assert session._records(two) == []
    create_experiment(two.config, two.task)
    assert session._records(two) == []
    session.write_table([two])
    assert not (session.folder / "table.md").exists()


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def paploss_cli(capsys, monkeypatch):
    """Runs a command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        try:
            code = cli.run_safely(lambda: cli.app(args=[*map(str, arguments)]))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shape"], "did you mean 'shapes'?"),
        (["GROUP", "--only", "on"], "did you mean 'one'?"),
        (["GROUP", "--set", "schedule.epoch=1"], "did you mean 'epochs'?"),
        (["GROUP", "--set", "sedes=1"], "did you mean 'seeds'?"),
        (["GROUP", "--seeds", "0"], "Invalid value for '--seeds'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    paploss_cli, group_yaml, tmp_path, arguments, said
):
    arguments = [group_yaml() if part == "GROUP" else part for part in arguments]
    code, _, err = paploss_cli("ablate", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_the_commands_options_reach_the_run(paploss_cli, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(runner, "ablate", lambda *args, **options: asked.append((args, options)))
    assert paploss_cli(
        "ablate", "shapes", "--seeds", 5, "--only", "a", "--only", "b", "--set", "a.b=1",
        "--out", tmp_path,
    )[0] == 0  # fmt: skip
    assert paploss_cli("ablate", "shapes", "--trust-code")[0] == 0
    some = {"only": ["a", "b"], "overrides": {"a.b": 1, "seeds": 5}, "trust_code": False}
    none = {"only": (), "overrides": {}, "trust_code": True}
    assert asked == [(("shapes", tmp_path), some), (("shapes", None), none)]
