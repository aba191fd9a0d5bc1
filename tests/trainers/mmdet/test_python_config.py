"""mmengine's configs read as data; what is more than data is run only where it is trusted."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from mmengine.config import Config

from paploss.configs import config_folder
from paploss.errors import BadConfig
from trainers.mmdet.python_config import INSTALLED, installed_configs, read_mmdet_config
from trainers.read import load_detector

DETECTORS = sorted(path.stem for path in config_folder().glob("detectors/*.yaml"))
BASES = sorted(
    {
        base
        for path in config_folder().glob("detectors/*.yaml")
        if (base := yaml.safe_load(path.read_text()).get("base", "")).startswith(INSTALLED)
    }
)


def config(folder: Path, text: str, name: str = "config.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("name", BASES)
def test_data_is_what_mmengine_gets_by_running_it(name: str) -> None:
    file = installed_configs() / name.removeprefix(INSTALLED)
    assert read_mmdet_config(name) == Config.fromfile(str(file)).model.to_dict()


@pytest.mark.parametrize("name", DETECTORS)
def test_no_shipped_detector_runs_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("a config was run")

    monkeypatch.setattr(Config, "fromfile", run)
    assert load_detector(name).model


def test_assignments_are_read(tmp_path: Path) -> None:
    config(tmp_path, "model = dict(type='A', neck=dict(a=1, b=[1, 2]), head={'c': 3})", "base.py")
    text = """
'''A text.'''
import os
_base_ = './base.py'
depth = 2 * 9
parts = [1] * 2 + [depth - 1, -0.5]
more = dict(deep=(1, None), **dict(x=True))
unused = os.environ
model = dict(
    neck=dict(b=parts, d=_base_.model.neck.a), head=dict(_delete_=True, e=more['deep']), depth=depth
)
"""
    path = config(tmp_path, text)
    expected = {
        "type": "A", "neck": {"a": 1, "b": [1, 1, 17, -0.5], "d": 1}, "head": {"e": (1, None)},
        "depth": 18,
    }  # fmt: skip
    assert read_mmdet_config(path) == expected
    assert Config.fromfile(path).model.to_dict() == expected


CODE = {
    "a call": "import os\nos.system('touch {}')\nmodel = dict(type='A')",
    "in a value": "model = dict(type=__import__('os').system('touch {}'))",
    "in a base": "_base_ = 'base.py'\nmodel = dict(type='A')",
    "a comprehension": "model = dict(type='A', a=[open('{}', 'w') for _ in [1]])",
    "dict is another": "dict = __import__('os').system\nmodel = dict('touch {}')",
    "a function": "def f():\n    open('{}', 'w')\nf()\nmodel = dict(type='A')",
    "an item": "model = {{}}\nmodel['type'] = open('{}', 'w')",
    "an f-string": "model = dict(type=f\"{{open('{}', 'w')}}\")",
}


@pytest.mark.parametrize("what", CODE)
def test_code_is_not_run_unless_trusted(what: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    config(tmp_path, CODE["a call"].format(marker), "base.py")
    path = config(tmp_path, CODE[what].format(marker))
    with pytest.raises(BadConfig, match=r"(?s)config\.py is Python that does more .*--trust-code"):
        read_mmdet_config(path)
    assert not marker.exists()
    with contextlib.suppress(BadConfig):  # some of these are no detectors even then
        read_mmdet_config(path, trust_code=True)
    assert marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(a=[0] * 10**9)",
        "a = [1] * 99999\nb = a + a\nmodel = dict(a=b)",
        "a = 9999999999 * 9999999999\nmodel = dict(a=a)",
        "model = dict(a='x' * 10**9)",
        "model = dict(a=1 / 0)",
        "a = [1, 2]\n"
        + "".join("a = [a, a, a, a, a, a, a, a]\n" for _ in range(9))
        + "model = dict(a=a)",
    ],
)
def test_data_that_would_grow_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig):
        read_mmdet_config(config(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 0.1\n", "has no `model`"),
        ("model = dict(\n", "cannot read"),
        (None, "cannot read"),
        ("_base_ = 'config.py'\nmodel = dict()", "is its own base"),
        ("_base_ = 'gone.py'\nmodel = dict()", "cannot read .*gone"),
        ("model = " + "[" * 5000, "cannot read"),
        ("\0", "cannot read"),
    ],
)
def test_what_is_no_config_of_a_detector(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=f"(?s){message}"):
        read_mmdet_config(str(path))


def test_installed_configs_are_in_their_folder(tmp_path: Path) -> None:
    """By "..", code of anywhere would be trusted as mmdet is."""
    evil = config(tmp_path, "model = dict(type=print('run'))")
    way = "../" * len(installed_configs().parts) + evil.lstrip("/")
    assert (installed_configs() / way).exists()
    for name in (way, evil, "gone.py"):
        with pytest.raises(BadConfig, match="mmdet brings no such config"):
            read_mmdet_config(INSTALLED + name)
