"""Readers of settings: YAML, Python configs, and what a command line overrides."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from paploss.configs import config_folder
from tests.safety.inputs import spoilt_bytes, spoilt_yaml
from tests.safety.reader import Reader


def shipped(kind: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((config_folder() / kind).glob("*.yaml"))]


@cache
def complete_search() -> bytes:
    """What an experiment's config.yaml holds."""
    from search.run.load import load_search

    # No simulated trainings: they are slow, and nothing of them is read.
    quick = {"algorithm": "ppo2", "preflight.enabled": False}
    config, task = load_search("shapes", {"data": some_data("data"), **quick})
    values = {**config.model_dump(mode="json"), **task.model_dump(mode="json")}
    return yaml.safe_dump(values).encode()


@cache
def complete_training() -> bytes:
    """What best.yaml holds."""
    from trainers.export import read_training_yaml

    config = read_training_yaml("shapes", {"data": some_data("data")})
    return yaml.safe_dump(config.model_dump(mode="json")).encode()


def some_data(folder: str) -> dict[str, Any]:
    splits = {
        split: {"annotations": f"{folder}/{split}.json", "images": folder}
        for split in ("train", "val", "test")
    }
    return {"name": "some", "classes": ["a", "b"], **splits}


def _search(content: bytes, folder: Path) -> None:
    from search.run.load import load_search

    (folder / "search.yaml").write_bytes(content)
    load_search(str(folder / "search.yaml"), {})


def _training(content: bytes, folder: Path) -> None:
    from trainers.export import read_training_yaml

    (folder / "best.yaml").write_bytes(content)
    read_training_yaml(folder / "best.yaml")


def _detector(content: bytes, folder: Path) -> None:
    from trainers.mmdet.models import model_settings
    from trainers.mmdet.weights import with_urls
    from trainers.read import load_detector

    (folder / "detector.yaml").write_bytes(content)
    detector = with_urls(load_detector(str(folder / "detector.yaml")))
    model_settings(detector, {"type": "focal_giou"}, 3)


def _python_config(content: bytes, folder: Path) -> None:
    from trainers.read import load_detector

    (folder / "config.py").write_bytes(content)
    load_detector(str(folder / "config.py"))


def _preset(content: bytes, folder: Path) -> None:
    (folder / "preset.yaml").write_bytes(content)
    values = {**yaml.safe_load(complete_search()), "warm_start": "preset.yaml"}
    _search(json.dumps(values).encode(), folder)


def _ablation(content: bytes, folder: Path) -> None:
    from search.ablation import load_group

    (folder / "group.yaml").write_bytes(content)
    load_group(str(folder / "group.yaml"))


def _override(text: str, folder: Path) -> None:
    from search.run.load import load_search, parse_overrides

    (folder / "search.yaml").write_bytes(complete_search())
    load_search(str(folder / "search.yaml"), parse_overrides([text]))


@cache
def _keys() -> list[str]:
    def names(value: Any, way: str) -> Iterator[str]:
        for key, inner in value.items():
            yield f"{way}{key}"
            if isinstance(inner, dict):
                yield from names(inner, f"{way}{key}.")

    return [
        *names(yaml.safe_load(complete_search()), ""),
        "",
        "a.b",
        "name.x",
        "warm_start",
        "base",
    ]


def _overrides() -> st.SearchStrategy[str]:
    values = st.one_of(
        st.text(max_size=12),
        spoilt_bytes([b"{a: 1, b: [2, 3.5]}", b"parameterized_ap_retinanet_coco"]).map(
            lambda content: content.decode("utf-8", "replace")
        ),
        st.sampled_from(["null", "1e5", "-1", ".inf", "[]", "{}", "on", "9" * 400, "../x", "*a"]),
    )
    return st.builds(lambda key, value: f"{key}={value}", st.sampled_from(_keys()), values)


def _mmdet_configs() -> st.SearchStrategy[bytes]:
    from trainers.mmdet.python_config import installed_configs

    names = ("_base_/models/retinanet_r50_fpn.py", "retinanet/retinanet_r50_fpn_1x_coco.py")
    return spoilt_bytes([(installed_configs() / name).read_bytes() for name in names])


READERS = (
    Reader("search", lambda: spoilt_yaml([complete_search(), *shipped("search")]), _search, 0.5),
    Reader(
        "training", lambda: spoilt_yaml([complete_training(), *shipped("training")]), _training, 0.5
    ),
    Reader("detector", lambda: spoilt_yaml(shipped("detectors")), _detector),
    Reader("python config", _mmdet_configs, _python_config),
    Reader("preset", lambda: spoilt_yaml(shipped("presets")), _preset, 0.25),
    Reader("ablation", lambda: spoilt_yaml(shipped("ablations")), _ablation, 0.5),
    Reader("override", _overrides, _override, 0.5),
)
