"""What travels to a trial and back, and the net under it."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loss.by_head import family_of
from trainers.trial import TrialResult, TrialSpec, failure, one_line, run_trial

MakeSpec = Callable[..., TrialSpec]


@pytest.mark.parametrize("changes", [{}, {"theta": None, "criterion": {"type": "focal_giou"}}])
def test_a_spec_survives_json(make_spec: MakeSpec, changes: dict[str, Any]) -> None:
    spec = make_spec(**changes, evaluate=("val", "test"), seed=2**32 - 1)
    again = TrialSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))
    assert again == spec
    assert again.theta == spec.theta, "to the last digit"


def test_a_result_survives_json() -> None:
    result = TrialResult(
        status="ok", reward=1 / 3, val={"AP": 1 / 3}, fingerprint="0123456789ab", iterations=7,
        timing={"train": 0.1}, skipped_images={"a.png": "gone"},
    )  # fmt: skip
    assert TrialResult.model_validate(json.loads(json.dumps(result.model_dump()))) == result


@pytest.mark.parametrize(
    "changes",
    [{"seed": -1}, {"seed": 2**32}, {"threads": 0}, {"device": "tpu"}, {"evaluate": ("train",)}],
    ids=str,
)
def test_a_spec_out_of_range(make_spec: MakeSpec, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        make_spec(**changes)


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan")])
def test_a_reward_is_an_ap(reward: float) -> None:
    with pytest.raises(ValueError, match="reward"):
        TrialResult(status="ok", reward=reward)


def test_settings_are_those_of_theta(make_spec: MakeSpec, theta: tuple[float, ...]) -> None:
    """By stick breaking, written out: every coordinate takes its share of what is left."""
    settings = make_spec().criterion_settings
    names = family_of({"type": "parameterized_ap"}).names
    value = dict(zip(names, theta, strict=True))
    for curve, points in settings["control_points"].items():
        assert points[0] == [0.0, 0.0]
        assert points[-1] == [1.0, 1.0]
        for axis, letter in enumerate("xy"):
            c = 0.0
            for k in range(1, 5):
                c += value[f"{curve}.{letter}{k}"] * (1 - c)
                assert points[k][axis] == pytest.approx(c, abs=1e-15)
    assert settings["gradient_scale"] == pytest.approx(10 ** (2 * theta[-1] - 1))
    assert settings["type"] == "parameterized_ap"


def test_without_a_theta_the_criterion_stands_for_itself(make_spec: MakeSpec) -> None:
    baseline = {"type": "focal_giou", "giou_weight": 2.0}
    spec = make_spec(theta=None, criterion=baseline)
    assert spec.criterion_settings == baseline
    assert spec.family is None


def test_a_theta_of_another_family_fails(make_spec: MakeSpec, tmp_path: Path) -> None:
    result = run_trial(make_spec(theta=(0.5, 0.5)), tmp_path)
    assert result.status == "failed"
    assert result.error is not None
    assert "theta has 2 coordinates; expected 41" in result.error


def test_the_folder_is_made(make_spec: MakeSpec, tmp_path: Path) -> None:
    run_trial(make_spec(theta=(0.5, 0.5)), tmp_path / "a" / "b")
    assert "Traceback" in (tmp_path / "a" / "b" / "error.txt").read_text()


def test_an_interrupt_is_not_a_result(make_spec: MakeSpec, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(make_spec(), tmp_path, interrupt)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no"), "ValueError: no"),
        (RuntimeError("first\n  second\n\tthird"), "RuntimeError: first second third"),
        (KeyError("AP"), "KeyError: 'AP'"),
        (MemoryError(), "MemoryError:"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_one_line_is_not_a_long_one() -> None:
    assert len(one_line(ValueError("x" * 10_000))) == 500


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "train.log"), "lost"),
        (OSError(errno.EROFS, "Read-only file system"), "lost"),
        (MemoryError("Unable to allocate 9 GiB"), "failed"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "failed"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "val.json"), "failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_only_storage_is_not_the_trials_own_failure(error: BaseException, status: str) -> None:
    result = failure(error)
    assert (result.status, result.reward) == (status, None)
    assert result.error
