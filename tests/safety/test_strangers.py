"""What somebody else has made: settings, data and experiments, through the commands that take them.

None of it runs code, and none of it leads out of its folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from paploss.configs import config_folder
from paploss.files import read_yaml
from search import cli
from search.exit_codes import Exit
from search.history import load_history
from tests.safety.settings_readers import complete_search
from tests.search.conftest import make_record, whole_search, write_experiment
from trainers.datasets.shapes import draw_shapes
from trainers.read import load_detector


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command in this process: (exit code, what it said)."""

    def command(*arguments: Any) -> tuple[int, str]:
        words = [str(word) for word in arguments]
        code = cli.run_safely(lambda: cli.app(args=words, standalone_mode=False))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return command


@pytest.fixture
def training(tmp_path: Path) -> dict[str, Any]:
    """A small training, as best.yaml has one."""
    draw_shapes(tmp_path / "shapes", train=4, val=2, test=2, size=64)
    return {
        "detector": load_detector("retinanet_r18_small").model_dump(mode="json"),
        "data": str(tmp_path / "shapes" / "dataset.yaml"),
        "criterion": {"type": "focal_giou"},
        "schedule": {"epochs": 1, "batch_size": 2, "image_size": [64, 64]},
    }


def write(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


# --- settings -----------------------------------------------------------------------------------

CALLS = {
    "a function of Python": ("backbone", {"type": "os.mkdir", "path": "{}"}),
    "a process": ("neck", {"type": "subprocess.call", "args": ["mkdir", "{}"]}),
    "as a layer": ("backbone.norm_cfg", {"type": "os.mkdir", "path": "{}"}),
    "non-maximum suppression": (
        "test_cfg.nms",
        {"type": "__import__('os').mkdir('{}')", "iou_threshold": 0.5},
    ),
    "a package": ("bbox_head", {"_scope_": "antigravity", "type": "RetinaHead"}),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_training_cannot_call(
    what: str, training: dict[str, Any], run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    way, value = CALLS[what]
    section = training["detector"]["model"]
    *above, last = way.split(".")
    for key in above:
        section = section[key]
    section[last] = json.loads(json.dumps(value).replace("{}", str(trace)))
    best = write(tmp_path / "best.yaml", training)
    code, said = run("train", best, "--out", tmp_path / "out")
    assert code == Exit.BAD_INPUT
    assert f"{way}." in said and "Traceback" not in said
    assert not trace.exists()


def test_a_python_config_is_run_for_those_who_say_so(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    evil = tmp_path / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(trace)!r})\nmodel = dict(type='RetinaNet')\n")
    write(tmp_path / "mine.yaml", {"name": "mine", "base": "evil.py"})
    write(tmp_path / "search.yaml", {"base": "shapes", "detector": "evil.py"})
    write(tmp_path / "best.yaml", {"base": "shapes", "detector": "mine.yaml"})
    write(tmp_path / "group.yaml", {
        "name": "group", "training": "best.yaml", "rows": [{"label": "a"}]
    })  # fmt: skip
    for command in (
        ("detector", evil),
        ("detector", tmp_path / "mine.yaml"),
        ("search", tmp_path / "search.yaml", "--set", f"storage={tmp_path}"),
        ("search", "shapes", "--set", f"detector={evil}", "--set", f"storage={tmp_path}"),
        ("train", tmp_path / "best.yaml", "--out", tmp_path / "out"),
        ("ablate", tmp_path / "group.yaml", "--out", tmp_path / "out",
         "--set", f"training={tmp_path / 'best.yaml'}"),
    ):  # fmt: skip
        code, said = run(*command)
        assert code == Exit.BAD_INPUT, said
        assert "evil.py" in said and "--trust-code" in said, (command, said)
        assert not trace.exists()
    code, said = run("detector", tmp_path / "mine.yaml", "--trust-code")
    assert (code, yaml.safe_load(said)["model"]) == (Exit.OK, {"type": "RetinaNet"})
    assert trace.exists()


def test_an_experiment_cannot_name_a_python_config(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Where nobody can say that it is trusted."""
    trace = tmp_path / "trace"
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(trace)!r})\nmodel = dict()\n")
    experiment = tmp_path / "one"
    experiment.mkdir()
    values = yaml.safe_load(complete_search()) | {"detector": str(tmp_path / "evil.py")}
    write(experiment / "config.yaml", values)
    code, said = run("resume", experiment)
    assert code == Exit.BAD_INPUT and "evil.py" in said
    assert not trace.exists()


@pytest.mark.parametrize("name", sorted(p.stem for p in config_folder().glob("detectors/*.yaml")))
def test_a_detector_in_full_is_the_detector(
    name: str, run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Plain data, with nothing else to read."""
    out = tmp_path / "mine.yaml"
    code, said = run("detector", name, "--out", out)
    assert code == Exit.OK and str(out) in said
    assert set(read_yaml(out)) == {"name", "model"}
    written, shipped = load_detector(str(out)), load_detector(name)
    assert written.model_dump(mode="json") == shipped.model_dump(mode="json")


# --- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../outside.png", "{}/outside.png", "a/../../outside.png"])
def test_images_outside_are_not_trained_on(
    name: str, training: dict[str, Any], run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    shapes = tmp_path / "shapes"
    name = name.replace("{}", str(tmp_path))
    coco = json.loads((shapes / "train.json").read_text())
    (shapes / "train" / coco["images"][0]["file_name"]).rename(tmp_path / "outside.png")
    coco["images"][0]["file_name"] = name
    (shapes / "train.json").write_text(json.dumps(coco))
    code, said = run("train", write(tmp_path / "best.yaml", training), "--out", tmp_path / "out")
    assert code == Exit.BAD_INPUT and "leads out of the folder of images" in said
    # Where nobody has checked, the data set itself refuses.
    from mmdet.registry import DATASETS

    from paploss.errors import BadData
    from trainers.datasets.coco import load_data
    from trainers.mmdet.config import dataset_settings
    from trainers.schedule import ScheduleConfig

    data = load_data(shapes / "dataset.yaml")
    with pytest.raises(BadData, match="is not in"):
        DATASETS.build(dataset_settings(data, "train", ScheduleConfig(image_size=(64, 64))))


def test_links_in_the_folder_may_lead_where_they_do(
    training: dict[str, Any], run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    shapes = tmp_path / "shapes"
    image = next((shapes / "train").iterdir())
    image.rename(tmp_path / "elsewhere.png")
    image.symlink_to(tmp_path / "elsewhere.png")
    code, said = run("data", "check", shapes / "dataset.yaml")
    assert code == Exit.OK, said


@pytest.mark.parametrize("place", ["../../outside", "/etc", "..", "a/b", "", "\0"])
def test_a_trial_of_an_experiment_is_in_it(place: str, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path / "one", [make_record("search", trial_dir=place)])
    history = load_history(experiment)
    assert history.records == ()
    assert any("'trial_dir'" in reason for reason in history.damaged)
    whole = write_experiment(tmp_path / "two", whole_search())
    assert load_history(whole).damaged == ()


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".x", "a/b"])
def test_the_name_of_a_search_is_no_path(
    name: str, run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = run("search", "shapes", "--set", f"name={name}", "--set", f"storage={tmp_path}")
    assert code == Exit.BAD_INPUT and "name: got" in said


def test_secrets_in_addresses_are_refused(
    training: dict[str, Any], run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    address = "https://me:hunter2@127.0.0.1:1/weights.pth"
    training["detector"]["model"]["backbone"]["init_cfg"] = {
        "type": "Pretrained",
        "checkpoint": address,
    }
    code, said = run("train", write(tmp_path / "best.yaml", training), "--out", tmp_path / "out")
    assert code == Exit.BAD_INPUT and "an address with a password" in said
    assert "hunter2" not in said and not (tmp_path / "out").exists()


def test_a_checkpoint_to_go_on_from_cannot_call(
    training: dict[str, Any], run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    out, trace = tmp_path / "out", tmp_path / "trace"
    out.mkdir()
    (out / "epoch_1.pth").write_bytes(f"cos\nmkdir\n(V{trace}\ntR.".encode())
    (out / "last_checkpoint").write_text(str(out / "epoch_1.pth"))
    best = write(tmp_path / "best.yaml", training)
    code, said = run("train", best, "--out", out, "--resume", "--device", "cpu")
    assert code == Exit.BAD_INPUT and "epoch_1.pth is not loaded" in said
    assert not trace.exists()
