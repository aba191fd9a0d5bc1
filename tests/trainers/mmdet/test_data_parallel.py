"""Two processes that train and score one detector, compared with one process that does it alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gloo_workers import GlooWorkers
from tests.trainers.mmdet.pair import equal_to, fingerprints_of, scored, step, trial_of
from tests.trainers.mmdet.shrink import shrunk
from trainers.coco_eval import load_detections
from trainers.read import load_detector
from trainers.trial import TrialSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mmdet_modules")]
MakeSpec = Callable[..., TrialSpec]
PAP = {"criterion": {"type": "parameterized_ap", "segments": 5}}
STANDARD = {"criterion": {"type": "standard"}, "theta": None}
FOCAL = {"criterion": {"type": "focal_giou"}, "theta": None}
IMAGES = [0, 1, 2, 3, 4]
TOLERANCE = 2e-4
"""Of the largest entry of a gradient: it is in float32, and summed in another order."""


@pytest.fixture(scope="module")
def pair() -> Iterator[GlooWorkers]:
    found = GlooWorkers(2)
    yield found
    found.close()


@pytest.fixture
def make(make_spec: MakeSpec) -> MakeSpec:
    """A trial without chance, on both workers or on one."""

    def made(gather: bool = False, **changes: Any) -> TrialSpec:
        schedule = {"augmentation": "none", "gather_logits": gather, "cache_images": False}
        return make_spec(schedule=schedule, **changes)

    return made


def on_both(pair: GlooWorkers, spec: TrialSpec, folder: Path) -> list[Any]:
    found = pair.call(step, [(spec, folder, IMAGES[rank::2]) for rank in range(2)])
    for each in found:
        assert isinstance(each, dict), each
    assert found[0]["fingerprint"] == found[1]["fingerprint"]
    assert equal_to(found[0]["gradients"], found[1]["gradients"], 0), "they stay in step"
    return found


@pytest.mark.parametrize(
    "changes", [PAP, {**PAP, "theta": (0.4, 0.6) * 20 + (0.8,)}, FOCAL, STANDARD], ids=str
)
def test_gathered_gradients_are_those_of_one_process(
    pair: GlooWorkers, make: MakeSpec, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Of five images, so that the workers' shares differ in size."""
    alone = step(make(**changes), tmp_path, IMAGES)
    for found in on_both(pair, make(gather=True, **changes), tmp_path):
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert equal_to(found["gradients"], alone["gradients"], TOLERANCE)
        assert found["fingerprint"] == alone["fingerprint"], "the probe ranks alone"


def test_else_a_ranking_loss_is_the_mean_of_what_the_workers_rank(
    pair: GlooWorkers, make: MakeSpec, tmp_path: Path
) -> None:
    spec = make(**PAP)
    own = [step(spec, tmp_path, IMAGES[rank::2]) for rank in range(2)]
    mean = {
        name: (gradient + own[1]["gradients"][name]) / 2
        for name, gradient in own[0]["gradients"].items()
    }
    for found, each in zip(on_both(pair, spec, tmp_path), own, strict=True):
        assert found["losses"] == pytest.approx(each["losses"], rel=1e-5)
        assert equal_to(found["gradients"], mean, TOLERANCE)
    whole = step(spec, tmp_path, IMAGES)
    assert not equal_to(mean, whole["gradients"], 0.05), "which is another loss"


def test_a_loss_of_single_scores_needs_no_gathering(
    pair: GlooWorkers, make: MakeSpec, tmp_path: Path
) -> None:
    """With a head that counts over all workers, as ATSS's does; RetinaNet's counts its own."""
    detector = shrunk(load_detector("atss_r50"))
    alone = step(make(detector=detector, **STANDARD), tmp_path, IMAGES)
    for found in on_both(pair, make(detector=detector, **STANDARD), tmp_path):
        assert equal_to(found["gradients"], alone["gradients"], TOLERANCE)


@pytest.mark.parametrize("name", ["faster_rcnn_r18_small", "deformable_detr_r18_small"])
def test_other_families_gather_too(
    pair: GlooWorkers, make: MakeSpec, tmp_path: Path, name: str
) -> None:
    """Two heads, and a head of many layers; what is gathered is one loss to both workers."""
    found = on_both(pair, make(gather=True, detector=load_detector(name), **PAP), tmp_path)
    assert found[0]["losses"] == pytest.approx(found[1]["losses"], rel=1e-6)
    assert len([loss for loss in found[0]["losses"] if loss.endswith("loss_pap")]) > 1


@pytest.mark.parametrize("batch_size", [2, 3, 8], ids=["even", "uneven", "one batch for two"])
def test_scores_do_not_depend_on_how_many_score(
    pair: GlooWorkers, make: MakeSpec, tmp_path: Path, batch_size: int
) -> None:
    spec = make()
    alone = scored(spec, tmp_path, batch_size, tmp_path / "alone.npz")
    both = pair.call(scored, [(spec, tmp_path, batch_size, tmp_path / "both.npz")] * 2)
    assert both == [alone, None]
    (rows, images), (expected, all_images) = (
        load_detections(tmp_path / f"{name}.npz") for name in ("both", "alone")
    )
    assert images == all_images
    assert len(images) == 8
    assert len(rows) > 100
    np.testing.assert_array_equal(rows, expected)


def test_workers_stop_together(pair: GlooWorkers, make: MakeSpec, tmp_path: Path) -> None:
    """Only the first has the score. At a fidelity: 8 of 16 images in batches of 2 + 2."""
    spec = make(
        fidelity={"images": 0.5, "val_images": 0.5},
        early_stop={"at": 0.5, "images": 3, "below": 1.0, "reward": 0.25},
    )
    one, other = pair.call(trial_of, [(spec, tmp_path / "both")] * 2)
    for found in (one, other):
        assert (found["status"], found["reward"], found["iterations"]) == ("stopped", 0.25, 1)
        assert found["early"] is not None
        assert found["error"] == one["error"]
    assert one["early"] == other["early"]


def test_workers_that_would_train_on_different_things(
    pair: GlooWorkers, make: MakeSpec, tmp_path: Path
) -> None:
    """As when one machine has other files than the others."""
    thetas = (make().theta, (0.5,) * len(make().theta or ()))
    told = pair.call(fingerprints_of, [(make(theta=theta), tmp_path) for theta in thetas])
    for found in told:
        assert found.startswith(
            "ThetaNotApplied: worker 1 would train on something else than worker 0: their "
            "fingerprints are "
        )
