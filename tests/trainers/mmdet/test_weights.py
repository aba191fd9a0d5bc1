"""Pretrained weights: found, fetched over a real connection, or asked for by name."""

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from paploss.errors import BadConfig
from trainers.config import DetectorConfig
from trainers.mmdet.runner import build_runner
from trainers.mmdet.training import check_task
from trainers.mmdet.weights import check_weights, pretrained, with_urls
from trainers.trial import TrialSpec


def starting_from(checkpoint: str) -> DetectorConfig:
    init_cfg = {"type": "Pretrained", "checkpoint": checkpoint}
    return DetectorConfig(name="net", model={"backbone": {"type": "X", "init_cfg": init_cfg}})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps what it has fetched, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a folder with tiny-0123abcd.pth."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({"weight": torch.ones(3)}, folder / "tiny-0123abcd.pth")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_a_detector_starts_from() -> None:
    settings = {
        "backbone": {"init_cfg": {"type": "Pretrained", "checkpoint": "a.pth", "prefix": "b."}},
        "neck": {"init_cfg": {"type": "Xavier", "layer": "Conv2d"}},
        "bbox_head": [{"init_cfg": [{"type": "Pretrained", "checkpoint": "c.pth"}]}, {}],
        "test_cfg": None,
    }
    assert [*pretrained(settings)] == [
        ("backbone.init_cfg", "a.pth"),
        ("bbox_head.0.init_cfg.0", "c.pth"),
    ]


def test_weights_that_are_there_are_not_fetched(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    # The name that torchvision's file has on disk.
    files = [cache / "resnet50-0676ba61.pth", cache / "mine.pth", tmp_path / "own.pth"]
    for file in files:
        torch.save({"weight": torch.ones(1)}, file)
    before = [file.read_bytes() for file in files]
    check_weights(starting_from("torchvision://resnet50"))
    check_weights(starting_from("http://127.0.0.1:1/folder/mine.pth?download=1"))
    check_weights(starting_from(str(tmp_path / "own.pth")))
    assert [file.read_bytes() for file in files] == before
    assert len([*cache.iterdir()]) == 2


def test_weights_that_are_more_than_that_are_refused_before_a_trial(
    cache: Path, tmp_path: Path, served: str
) -> None:
    (tmp_path / "own.pth").write_bytes(b"cos\nmkdir\n(Vmarker\ntR.")
    with pytest.raises(BadConfig, match=r"own\.pth is not loaded: .* could run code"):
        check_weights(starting_from(str(tmp_path / "own.pth")))
    (tmp_path / "served" / "evil.pth").write_bytes((tmp_path / "own.pth").read_bytes())
    with pytest.raises(BadConfig, match=r"evil\.pth is not loaded: .* could run code"):
        check_weights(starting_from(f"{served}/evil.pth"))


def test_names_become_urls_and_nothing_else_changes() -> None:
    model = {
        "backbone": [{"depth": 50, "init_cfg": {"type": "Pretrained", "checkpoint": "{}"}}],
        "neck": {"init_cfg": {"type": "Pretrained", "checkpoint": "own.pth", "prefix": "neck."}},
    }

    def named(checkpoint: str) -> DetectorConfig:
        settings = json.loads(json.dumps(model).replace("{}", checkpoint))
        return DetectorConfig(name="net", model=settings)

    before = named("torchvision://resnet50")
    url = with_urls(before).model["backbone"][0]["init_cfg"]["checkpoint"]
    assert re.match(r"https://\S+/resnet50-0676ba61\.pth$", url)
    assert with_urls(before) == named(url)
    assert before == named("torchvision://resnet50")
    assert with_urls(named(url)) == named(url)


def test_a_detector_begins_with_what_was_fetched(
    make_spec: Callable[..., TrialSpec], cache: Path, tmp_path: Path
) -> None:
    """By a name, through mmengine's own loader."""
    spec = make_spec()
    runner = build_runner(spec, tmp_path / "one", [])
    weights = {name: value + 1 for name, value in runner.model.backbone.state_dict().items()}
    cache.mkdir(parents=True)
    torch.save(weights, cache / "resnet18-f37072fd.pth")
    runner = build_runner(starts(spec, "torchvision://resnet18"), tmp_path / "other", [])
    runner._init_model_weights()
    begun = runner.model.backbone.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in weights.items())


def starts(spec: TrialSpec, checkpoint: str) -> TrialSpec:
    """`spec` with a backbone that begins with a checkpoint."""
    init_cfg = {"type": "Pretrained", "checkpoint": checkpoint}
    backbone = {**spec.detector.model["backbone"], "init_cfg": init_cfg}
    model = {**spec.detector.model, "backbone": backbone}
    return spec.model_copy(update={"detector": DetectorConfig(name="net", model=model)})


def test_missing_weights_are_fetched_once(cache: Path, served: str) -> None:
    detector = starting_from(f"{served}/tiny-0123abcd.pth")
    check_weights(detector)
    fetched = cache / "tiny-0123abcd.pth"
    assert torch.load(fetched)["weight"].tolist() == [1, 1, 1]
    written = fetched.stat().st_mtime_ns
    check_weights(detector)
    assert fetched.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["none.pth", "tiny-0123abcd.pth"])
def test_weights_that_cannot_be_fetched(cache: Path, served: str, name: str) -> None:
    """Not there (HTTP 404), or nobody there: nothing listens on port 1."""
    address = served if name == "none.pth" else "http://127.0.0.1:1"
    with pytest.raises(BadConfig, match="cannot be fetched") as error:
        check_weights(starting_from(f"{address}/{name}"))
    said = str(error.value)
    assert f"is not at {cache / name}" in said
    assert f"from {address}/{name}" in said
    assert "--set detector.model.backbone.init_cfg=null" in said
    assert not any(cache.iterdir()), "half a file would be taken for a whole one"


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("weights/none.pth", "starts from weights/none.pth, which is not at weights/none.pth"),
        ("torchvision://resnet5", r"torchvision://resnet5 is not known; expected a file, a URL"),
        ("ftp://somewhere/weights.pth", "ftp://somewhere/weights.pth is not known"),
    ],
)
def test_weights_that_nobody_knows(cache: Path, checkpoint: str, message: str) -> None:
    with pytest.raises(BadConfig, match=f"detector net.* {message}"):
        check_weights(starting_from(checkpoint))


@pytest.mark.parametrize("checkpoint", [3, None, "", ["a.pth"]])
def test_a_checkpoint_that_is_no_name(checkpoint: Any) -> None:
    model = {"backbone": {"init_cfg": {"type": "Pretrained", "checkpoint": checkpoint}}}
    with pytest.raises(BadConfig, match=r"backbone\.init_cfg: checkpoint is .*expected a file"):
        check_weights(DetectorConfig(name="net", model=model))


def test_they_are_missed_before_any_trial(
    make_spec: Callable[..., TrialSpec], tmp_path: Path
) -> None:
    checkpoint = str(tmp_path / "weights.pth")
    spec = starts(make_spec(), checkpoint)
    with pytest.raises(BadConfig, match=r"starts from .*weights\.pth"):
        check_task(spec)
    torch.save({}, checkpoint)
    check_task(spec)
