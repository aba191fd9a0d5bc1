"""What a user can get wrong: one clear message, exit code 2, and no trial spent."""

import copy
import json
import os
import shutil

import pytest
import yaml

from paploss.configs import find
from paploss.files import read_yaml
from search import cli


@pytest.fixture
def folder(settings, data, tmp_path):
    """A sound search.yaml whose data set is beside it, to be spoilt."""
    shutil.copytree(data.parent, tmp_path / "shapes")
    changed = {**settings, "data": "shapes/dataset.yaml", "storage": str(tmp_path / "out")}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(changed))
    return tmp_path


@pytest.fixture
def refused(folder, capsys, handlers):
    """Runs a search that must be refused, and gives the message."""

    def run(*sets, config=None):
        overrides = [word for item in sets for word in ("--set", item)]
        command = ["search", str(config or folder / "search.yaml"), *overrides]
        with pytest.raises(SystemExit) as end:
            raise SystemExit(cli.run_safely(lambda: cli.app(args=command)))
        assert end.value.code == 2
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        *before, message = err.split("error: ")
        assert len(before) == 1, f"not one message: {err}"
        assert not (folder / "out").exists() or not list(folder.glob("out/*/journal/*"))
        return message.strip()

    return run


# --- settings -----------------------------------------------------------------------------------

# What is given, and what the message has to say.
SETTINGS = {
    "unknown section": ("algoritm.rounds=3", "algoritm: unknown key; did you mean 'algorithm'?"),
    "unknown key": ("algorithm.round=3", "algorithm.round: unknown key; did you mean 'rounds'?"),
    "unknown key of final": ("final.candidate=3", "did you mean 'candidates'?"),
    "unknown key of resources": ("resources.cpu_per_trial=1", "did you mean 'cpus_per_trial'?"),
    "unknown key of schedule": ("schedule.epoch=3", "did you mean 'epochs'?"),
    "unknown key of training": ("training.epochz=3", "did you mean 'epochs'?"),
    "nothing like it": ("schedule.colour=3", "schedule.colour: unknown key; known here: amp"),
    "no round": ("algorithm.rounds=0", "algorithm.rounds: got 0"),
    "a word for a number": ("algorithm.rounds=many", "algorithm.rounds: got 'many'"),
    "half a round": ("algorithm.rounds=2.5", "algorithm.rounds: got 2.5"),
    "one sample": ("algorithm.samples=1", "algorithm.samples: got 1"),
    "too much spread": ("algorithm.sigma=2", "algorithm.sigma: got 2"),
    "unknown algorithm": ("algorithm.type=sgd", "'ppo2', 'random', 'cem'"),
    "a value for a section": ("algorithm=5", "algorithm: got 5"),
    "a section for a value": ("name={a: b}", "name: got {'a': 'b'}"),
    "a name with a slash": ("name=a/b", "name: got 'a/b'"),
    "no name": ("name=", "name: got None"),
    "negative seed": ("seed=-1", "seed: got -1"),
    "infinite rate": ("schedule.learning_rate=.inf", "schedule.learning_rate: got inf"),
    "tiny images": ("schedule.image_size=[8, 8]", "at least 32 pixels"),
    "three sides": ("schedule.image_size=[64, 64, 3]", "schedule.image_size"),
    "steps without step": ("schedule.decay=step", "`steps` and `decay: step` go together"),
    "no CPU": ("resources.cpus_per_trial=0", "resources.cpus_per_trial: got 0"),
    "unknown criterion": ("criterion.type=papp", "unknown criterion 'papp'; known: alrp, ap, "),
    "unknown option": ("criterion.segmnts=4", "segmnts"),
    "criterion out of range": ("criterion.segments=1", "segments is 1; expected 2 to 64"),
    "criterion without type": ("criterion={segments: 4}", "with its `type`"),
    "criterion of a list": ("criterion.type=[a]", "with its `type`"),
    "nothing to search": ("criterion={type: focal_giou}", "no parameters to search"),
    "unknown baseline": ("baseline={type: focl}", "unknown criterion 'focl'"),
    "unknown option of baseline": ("baseline={type: focal_giou, gama: 2}", "gama"),
    "missing detector": ("detector=nothing.yaml", "no file 'nothing.yaml'"),
    "mistyped detector": ("detector=retinanet_r18_smal", "did you mean 'retinanet_r18_small'?"),
    "missing data": ("data=nothing.yaml", "no file 'nothing.yaml'"),
    "detector without model": ("detector={name: x}", "detector.model: missing"),
    "set without value": ("algorithm.rounds", "--set algorithm.rounds: expected key=value"),
    "set without key": ("=3", "--set =3: expected key=value"),
    "set of no YAML": ("algorithm.rounds=[1", "--set algorithm.rounds=[1: the value is not"),
    "set below a value": ("algorithm.rounds.x=1", "rounds holds 2 and has no keys"),
}


@pytest.mark.parametrize(("given", "said"), SETTINGS.values(), ids=SETTINGS)
def test_settings(refused, given, said):
    message = refused(given)
    assert said in message
    assert len(message) < 600, "a message that nobody reads"


FILES = {
    "missing": (None, "no file"),
    "a list": ("- name: one\n", "should hold keys and values, but holds list"),
    "empty": ("", "should hold keys and values, but holds NoneType"),
    "not YAML": ("name: [one\n", "is not valid YAML"),
    "tabs": ("name:\n\tone: 1\n", "is not valid YAML"),
    "not text": (b"\x89PNG\r\n\x1a\n\x00", "is not valid YAML"),
    "code": ("name: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    "nothing in it": ("name: one\n", "missing; it has to be given"),
}


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_files(refused, folder, content, said):
    path = folder / "spoilt.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused(config=path)
    assert "spoilt.yaml" in message
    assert said in message


# --- data ---------------------------------------------------------------------------------------


def rewrite(path, change):
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def without_boxes(coco):
    coco["annotations"].clear()


def crowds_only(coco):
    for annotation in coco["annotations"]:
        annotation["iscrowd"] = 1


def renamed_category(coco):
    coco["categories"][1]["name"] = "disc"


def other_ids(coco):
    for index, category in enumerate(coco["categories"]):
        category["id"] = index + 10
    for annotation in coco["annotations"]:
        annotation["category_id"] += 9


DATA = {
    "unknown key": ("dataset.yaml", lambda d: d.update(clases=[]), "did you mean 'classes'?"),
    "no split": ("dataset.yaml", lambda d: d.pop("test"), "test: missing"),
    "val is train": (
        "dataset.yaml", lambda d: d.update(val=d["train"]), "val shares images with train"
    ),
    "test is val": (
        "dataset.yaml", lambda d: d.update(test=d["val"]), "test shares images with val"
    ),
    "other classes": (
        "dataset.yaml", lambda d: d.update(classes=["square", "circle"]), "'triangle'"
    ),
    "other order": (
        "dataset.yaml", lambda d: d["classes"].reverse(), "the same in another order"
    ),
    "other category": ("val.json", renamed_category, "'disc'"),
    "other category ids": ("val.json", other_ids, "Use the same ids in both files"),
    "no annotations file": (
        "dataset.yaml", lambda d: d["val"].update(annotations="no.json"), "no.json"
    ),
    "no image folder": ("dataset.yaml", lambda d: d["val"].update(images="no"), "`val.images`"),
    "images elsewhere": (
        "dataset.yaml", lambda d: d["val"].update(images="."), "8 of 8, the first is '000000.png'"
    ),
    "no boxes to train on": ("train.json", without_boxes, "none of the 16 images"),
    "no boxes to score": ("val.json", crowds_only, "none of the 8 images"),
    "no images": ("test.json", lambda d: d.update(images=[], annotations=[]), "lists no images"),
    "not COCO": ("train.json", lambda d: d.pop("categories"), "is not a COCO instances file"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "change", "said"), DATA.values(), ids=DATA)
def test_data(refused, folder, file, change, said):
    rewrite(folder / "shapes" / file, change)
    assert said in refused()


# --- the detector -------------------------------------------------------------------------------

DETECTORS = {
    "unknown backbone": (lambda m: m["backbone"].update(type="ResNot"), "ResNot"),
    "unknown argument": (lambda m: m["neck"].update(out_chanels=1), "out_chanels"),
    "unknown head": (
        lambda m: m["bbox_head"].update(type="SSDHead"),
        "of a type that has an adapter",
    ),
    "no head": (lambda m: m.pop("bbox_head"), "expected bbox_head, rpn_head or"),
    "unknown model": (lambda m: m.update(type="RetinoNet"), "RetinoNet"),
}


@pytest.mark.parametrize(("change", "said"), DETECTORS.values(), ids=DETECTORS)
def test_detectors(refused, folder, change, said):
    detector = copy.deepcopy(read_yaml(find("detectors", "retinanet_r18_small")))
    change(detector["model"])
    (folder / "net.yaml").write_text(yaml.safe_dump(detector))
    message = refused("detector=net.yaml")
    assert message.startswith("detector retinanet_r18_small")
    assert said in message


def test_a_detector_in_python_that_fails(refused, folder):
    (folder / "net.py").write_text("raise RuntimeError('broken on purpose')")
    assert "broken on purpose" in refused("detector=net.py")


# --- storage and the machine --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.cpu_count() >= 64, reason="this machine can give it")
def test_processors_that_the_machine_does_not_have(start, folder):
    """As the user types it; an error at once, and never a trial that waits for ever."""
    driver = start("search", folder / "search.yaml", "--set", "resources.cpus_per_trial=64")
    assert driver.code(90) == 2, driver.output
    *_, message = driver.output.split("error: ")
    assert "a trial asks for 64 CPUs" in message
    assert "resources.cpus_per_trial" in message
    assert "Traceback" not in driver.output
    assert not (folder / "out").exists()
    assert driver.left(30) == []


@pytest.mark.slow
def test_gpus_that_the_machine_does_not_have(refused, folder):
    message = refused("resources.gpus_per_trial=8")
    assert "a trial asks for 1 CPUs and 8 GPUs in 8 workers" in message
    assert "room for 0 such workers" in message
    assert not (folder / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("in_the_way", ["out", "out/one"])
def test_storage_that_cannot_be_written(refused, folder, in_the_way):
    (folder / in_the_way).parent.mkdir(exist_ok=True)
    (folder / in_the_way).write_text("a file")
    message = refused()
    assert f"cannot write to {folder / 'out' / 'one'}" in message
    assert "--set storage=" in message


@pytest.mark.slow
def test_as_the_user_sees_it(start, folder):
    """The message and nothing else."""
    driver = start("search", folder / "search.yaml", "--set", "algorithm.round=3")
    assert driver.code(60) == 2
    assert driver.output == (
        f"error: {folder / 'search.yaml'} with --set algorithm.round:\n"
        "  algorithm.round: unknown key; did you mean 'rounds'?\n"
    )
