"""Checkpoints are weights and data, whatever else somebody has put into one."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from paploss.errors import BadConfig
from trainers.mmdet import weights
from trainers.mmdet.checkpoints import load_weights


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(params=[True, False], ids=["archive", "of old"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    def write(value: Any) -> Path:
        path = tmp_path / "some.pth"
        torch.save(value, path, _use_new_zipfile_serialization=request.param)
        return path

    return write


def test_what_a_training_keeps_is_read(save: Callable[[Any], Path]) -> None:
    """All but the history of logged values, whose classes name their methods by `getattr`."""
    state = {
        "meta": {"epoch": 2, "seed": np.float64(0.5), "dataset_meta": {"classes": ("a", "b")}},
        "state_dict": OrderedDict(a=torch.arange(3.0)),
        "optimizer": {"state": {0: {"step": torch.tensor(1)}}, "array": np.arange(3)},
        "message_hub": {
            "log_scalars": {"loss": HistoryBuffer([1.0], [1])},
            "runtime_info": {"iter": 7},
        },
    }
    path = save(state)
    for mapped in (False, True):
        found = load_weights(path, mapped=mapped)
        assert found["meta"] == state["meta"]
        assert torch.equal(found["state_dict"]["a"], torch.arange(3.0))
        assert found["optimizer"]["array"].tolist() == [0, 1, 2]
        assert found["message_hub"] == {"log_scalars": {}, "runtime_info": {"iter": 7}}


def test_code_in_a_checkpoint_is_not_run(save: Callable[[Any], Path], tmp_path: Path) -> None:
    path = save({"state_dict": {"a": torch.zeros(1)}, "meta": Runs(tmp_path / "marker")})
    for mapped in (False, True):
        with pytest.raises(BadConfig, match=r"some\.pth is not loaded: .* could run code"):
            load_weights(path, mapped=mapped)
    # As mmengine loads whatever a detector's init_cfg names, and a training that is resumed.
    with pytest.raises(BadConfig, match="could run code"):
        CheckpointLoader.load_checkpoint(str(path), "cpu")
    assert not (tmp_path / "marker").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "marker").exists()  # it would have


def test_getattr_gives_nothing(save: Callable[[Any], Path]) -> None:
    """mmengine accepts it, and with it every attribute of what is accepted."""

    class Asks:
        def __reduce__(self) -> Any:
            return getattr, (torch.nn.Module, "__init__")

    try:
        found = load_weights(save({"a": Asks()}))
    except BadConfig:
        return
    assert found == {"a": None}


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"no checkpoint", None])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadConfig, match=r"some\.pth (cannot be loaded|is not loaded)"):
        load_weights(path)


def test_mmengine_has_no_other_loader() -> None:
    assert weights.check_weights  # imported with whatever builds a runner
    names = {loader.__module__ for loader in CheckpointLoader._schemes.values()}
    assert names == {"trainers.mmdet.checkpoints"}


def test_weights_begin_where_they_were(save: Callable[[Any], Path]) -> None:
    from mmengine.model import initialize

    layer = nn.Linear(2, 1)
    other = nn.Linear(2, 1)
    path = save({"state_dict": layer.state_dict()})
    initialize(other, {"type": "Pretrained", "checkpoint": str(path)})
    assert torch.equal(other.weight, layer.weight)
