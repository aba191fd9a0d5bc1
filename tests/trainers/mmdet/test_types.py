"""A detector's settings build registered parts of detectors, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from paploss.configs import config_folder
from paploss.errors import BadConfig
from trainers.mmdet.types import check_types
from trainers.read import load_detector


@pytest.mark.parametrize(
    "path", sorted(config_folder().glob("detectors/*.yaml")), ids=lambda p: p.stem
)
def test_shipped_detectors_pass(path: Path) -> None:
    check_types(load_detector(str(path)).model, "a detector")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "os.system"}, "type is 'os.system', which mmengine would import and call"),
        ({"type": "subprocess.Popen", "args": ["true"]}, "import and call"),
        ({"backbone": {"type": "mmdet.models.backbones.ResNet"}}, r"backbone\.type .*'ResNet'"),
        ({"a": [{"b": ({"type": "builtins.eval"},)}]}, r"a\.0\.b\.0\.type"),
        ({"neck": {"_scope_": "antigravity", "type": "FPN"}}, r"neck\._scope_ is 'antigravity'"),
        ({"neck": {"type": "antigravity"}}, "neither mmdet nor mmengine has registered that"),
        ({"neck": {"type": "FPNN"}}, "did you mean 'FPN'"),
        ({"neck": {"type": ["FPN"]}}, "expected the name of a registered class"),
        ({"type": {"type": "FPN"}}, "expected the name of a registered class"),
        (
            {"test_cfg": {"nms": {"type": "__import__('os').system('true')"}}},
            "one of nms, soft_nms",
        ),
        ({"test_cfg": {"rcnn": {"nms": {"type": "print"}}}}, r"rcnn\.nms\.type"),
        ({"roi_layer": {"type": "nms"}}, "RoIAlign"),
        # Registered, but they evaluate texts, run a config, or download.
        ({"type": "CameraMotionCompensation", "warp_mode": "print()"}, "evaluates its settings"),
        ({"type": "KnowledgeDistillationSingleStageDetector"}, "runs the config file"),
        ({"type": "BertModel", "name": "x"}, "downloads models"),
        ({"type": "GLIP"}, "downloads"),
    ],
)
def test_what_could_run_or_fetch_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=f"mine: .*{message}"):
        check_types(settings, "mine")


@pytest.mark.parametrize(
    "name", ["FPN", "mmdet.FPN", "mmengine.BN", "Kaiming", "DeltaXYWHBBoxCoder", None]
)
def test_registered_names_pass(name: str | None) -> None:
    check_types({"neck": {"type": name, "_scope_": "mmdet"}}, "mine")
