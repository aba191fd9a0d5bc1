"""The command line: its help, its exit codes, and what becomes of errors."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import paploss
from paploss.errors import (
    BadConfig,
    BadData,
    BadExperiment,
    NotEnoughResources,
    SearchStopped,
    TrainingStopped,
    UserError,
)
from search import cli
from search.exit_codes import Interrupted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def paploss_cli(capsys, monkeypatch):
    """Runs a command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments):
        try:
            code = cli.run_safely(lambda: cli.app(args=[*map(str, arguments)]))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (("search",), ["CONFIG", "--set", "KEY=VALUE", "--or-resume"]),
        (("resume",), ["EXPERIMENT"]),
        (("show",), ["EXPERIMENT", "--follow"]),
        (("export",), ["EXPERIMENT", "--out", "--trial", "search-003-05-0"]),
        (("train",), ["TRAINING_YAML", "--out", "--set", "--resume", "--device"]),
        (("doctor",), ["--storage"]),
        (("data", "shapes"), ["--out", "--train", "--val", "--test", "--size", "--seed"]),
        (("data", "voc"), ["FOLDERS...", "--out", "--val-images", "--seed"]),
        (
            ("data", "bdd100k"),
            ["TRAIN_LABELS", "VAL_LABELS", "--images", "--out", "--val-images", "--seed"],
        ),
        (("data", "check"), ["DATASET", "--images", "[default: 200]"]),
        (
            ("data", "coco-split"),
            ["ANNOTATIONS", "--out", "--val-images", "--images", "--test-annotations"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "x",
)
def test_help_is_enough(paploss_cli, command, arguments):
    code, out, _ = paploss_cli(*command, "--help")
    assert code == 0
    # Whether an argument stands there as EXPERIMENT or {experiment} is typer's taste.
    assert [name for name in arguments if name.lower() not in out.lower()] == []


def test_help_lists_every_command(paploss_cli):
    code, out, _ = paploss_cli("--help")
    assert code == 0
    for command in ("search", "resume", "export", "train", "show", "data", "doctor"):
        assert f" {command} " in out
    code, out, _ = paploss_cli("data", "-h")
    assert code == 0
    for command in ("shapes", "voc", "coco-split"):
        assert f" {command} " in out


def test_version(paploss_cli):
    assert paploss_cli("--version") == (0, f"paploss {paploss.__version__}\n", "")


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "search.cli", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"paploss {paploss.__version__}\n")


def test_help_and_version_load_nothing_heavy():
    """`paploss --help` answers at once: torch, Ray and mmdet are for those who use them."""
    code = (
        "import sys; from search import cli\n"
        "try: cli.app(args=['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'ray', 'mmdet', 'pandas') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["serch"], ["search"], ["search", "a", "b"], ["search", "a", "--sett", "x=1"],
        ["resume"], ["data"], ["data", "shapes", "--train", "none"],
        ["data", "shapes", "--size", "8"], ["data", "voc", "folder"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_line_that_cannot_be(paploss_cli, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = paploss_cli(*arguments)
    assert code == 2
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("it was so"), 2), (BadConfig("it was so"), 2), (BadData("it was so"), 2),
        (BadExperiment("it was so"), 2), (NotEnoughResources("it was so"), 2),
        (SearchStopped("it was so"), 3), (TrainingStopped("it was so"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_what_a_user_can_mend_is_one_message(capsys, error, code):
    def command():
        raise error

    assert cli.run_safely(command) == code
    assert capsys.readouterr() == ("", "error: it was so\n")


def test_an_interrupt_is_no_error(capsys):
    def command():
        raise Interrupted("go on with: paploss resume x")

    assert cli.run_safely(command) == 130
    assert capsys.readouterr().err == "go on with: paploss resume x\n"


def test_a_defect_keeps_its_traceback():
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run_safely(command)


def test_success_is_zero():
    assert cli.run_safely(lambda: None) == 0


def test_a_ctrl_c_while_nothing_runs_is_130():
    """Before Tune listens: while modules load, say."""
    code = (
        "import os, signal, sys; from search import cli\n"
        "@cli.app.command()\n"
        "def wait() -> None:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(cli.run_safely(lambda: cli.app(args=['wait'])))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["resume", "show", "export"])
def test_no_experiment_there(paploss_cli, command, tmp_path):
    code, out, err = paploss_cli(command, tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'nothing'}")
    assert err.count("\n") == 1


def test_no_training_yaml_there(paploss_cli, tmp_path):
    code, _, err = paploss_cli("train", tmp_path / "best.yaml")
    assert code == 2
    assert "best.yaml" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_scores_of_a_training_stand_side_by_side(capsys):
    """Test has large objects, val has none; what is not a score is not shown."""
    results = {
        "val": {"AP": 0.5, "oLRP_loc": 0.25},
        "test": {"AP": 0.75, "APl": 1.0, "oLRP_loc": 0.125},
        "fingerprint": "f00d",
    }
    cli._print_scores(results)
    assert capsys.readouterr().out.splitlines() == [
        "             val    test",
        "AP        0.5000  0.7500",
        "oLRP_loc  0.2500  0.1250",
        "APl            -  1.0000",
    ]


def test_a_training_stands_beside_the_search_that_found_its_loss(capsys):
    results = {"val": {"AP": 0.5, "oLRP": 0.75}, "test": {"AP": 0.25}}
    found = {"val_mean": 0.125, "test_mean": 0.0625, "scored_by": "AP"}
    cli._print_beside_search(results, "AP", found)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "AP                            val    test",
        "search's short training    0.1250  0.0625",
        "this training              0.5000  0.2500",
    ]
    # Scored by what the search was scored by; a split may have nothing to measure it on.
    cli._print_beside_search(results, "oLRP", {**found, "test_mean": None})
    assert capsys.readouterr().out.splitlines()[1:] == [
        "1 - oLRP                      val    test",
        "search's short training    0.1250       -",
        "this training              0.2500       -",
    ]
    cli._print_beside_search(results, "AP", {"experiment": "of one trial"})
    assert capsys.readouterr().out == ""


def test_where_a_training_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "best.yaml").touch()
    assert cli._training_folder(Path("found/best.yaml")) == tmp_path / "found" / "training"
    assert cli._training_folder(Path("retinanet_r50")) == tmp_path / "trainings" / "retinanet_r50"


def test_half_of_torchruns_environment_is_an_error(paploss_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    path = tmp_path / "best.yaml"
    path.write_text("base: shapes\n")
    code, _, err = paploss_cli("train", path)
    assert code == 2
    assert err.startswith("error: the environment has RANK=0, but not WORLD_SIZE")


def test_shapes_are_drawn_once(paploss_cli, tmp_path):
    arguments = ("data", "shapes", "--out", tmp_path / "shapes", "--train", 3, "--val", 2)
    arguments += ("--test", 1, "--size", 32)
    code, out, _ = paploss_cli(*arguments)
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[:3]] == [
        ["train", "3", "images"], ["val", "2", "images"], ["test", "1", "images"],
    ]  # fmt: skip
    assert f"data: {tmp_path / 'shapes' / 'dataset.yaml'}" in out
    data = yaml.safe_load((tmp_path / "shapes" / "dataset.yaml").read_text())
    assert data["classes"] == ["square", "circle", "triangle"]
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "shapes").rglob("*")}
    code, out, _ = paploss_cli(*arguments)
    assert code == 0
    assert "nothing was drawn" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shapes").rglob("*")} == drawn
    code, _, err = paploss_cli(*arguments, "--seed", 1)
    assert code == 2
    assert "another data set" in err


def test_a_data_set_is_checked(paploss_cli, tmp_path):
    paploss_cli("data", "shapes", "--out", tmp_path / "a", "--train", 3, "--val", 2, "--test", 2)
    code, out, err = paploss_cli("data", "check", tmp_path / "a" / "dataset.yaml")
    assert (code, err) == (0, "")
    assert "images opened: 3 of train, 2 of val, 2 of test\nNothing is wrong with it." in out
    (tmp_path / "a" / "val" / "000000.png").write_bytes(b"?")
    (tmp_path / "a" / "train" / "000001.png").unlink()
    code, out, err = paploss_cli(
        "data", "check", tmp_path / "a" / "dataset.yaml", "--images", "all"
    )
    assert (code, err) == (1, "")
    assert "fault: train: images of" in out
    assert "warning: val: images that cannot be read: 1 of 2 opened" in out
    assert "Faults, which no search starts with: 1. Defects, which training leaves out: 1." in out


@pytest.mark.parametrize("images", ["0", "-1", "some", "1.5"])
def test_so_many_images_cannot_be_opened(paploss_cli, images):
    code, _, err = paploss_cli("data", "check", "shapes", "--images", images)
    assert code == 2
    assert "expected a number above 0, or: all" in err


def test_the_script_is_installed_under_its_name():
    script = Path(sys.executable).parent / "paploss"
    if not script.exists():
        pytest.skip("paploss is not installed here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"paploss {paploss.__version__}\n"
