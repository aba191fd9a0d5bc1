"""Whole trials, real ones, on a tiny detector."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from loss import CURVES
from loss.by_head import family_of
from paploss.errors import BadConfig
from trainers.coco_eval import DETECTIONS, REFERENCE, average_precision, load_detections
from trainers.datasets.coco import DataConfig
from trainers.early_stop import EarlyStop
from trainers.fidelity import Fidelity, some_of
from trainers.mmdet import training
from trainers.mmdet.heads.anchor import CriterionRetinaHead
from trainers.mmdet.runner import build_runner
from trainers.mmdet.training import check_task, score_early, train_and_score, train_in_full
from trainers.schedule import ParamwiseConfig
from trainers.trial import TrialResult, TrialSpec, run_trial

MakeSpec = Callable[..., TrialSpec]
BASELINE = {"criterion": {"type": "focal_giou", "giou_weight": 2.0}, "theta": None}
LONG = {"epochs": 20, "batch_size": 1, "warmup_iterations": 0}
"""320 iterations: more than any test lets happen."""


def without_times(result: TrialResult) -> TrialResult:
    return result.model_copy(update={"timing": {}})


def weights(spec: TrialSpec, folder: Path, *, trained: bool = True) -> dict[str, torch.Tensor]:
    """All of the detector's numbers, after its training or where it begins."""
    runner = build_runner(spec, folder, [])
    if trained:
        runner.train()
    else:
        runner._init_model_weights()
    return dict(runner.model.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_trial_repeats_itself_to_the_last_digit(
    make_spec: MakeSpec, shapes: DataConfig, tmp_path: Path
) -> None:
    # Scored on its training images, so that so short a training finds something.
    data = shapes.model_copy(update={"val": shapes.train})
    schedule = {"epochs": 20, "learning_rate": 0.01}
    spec = make_spec(data=data, schedule=schedule, evaluate=("val", "test"))
    first = run_trial(spec, tmp_path / "first")
    torch.rand(5)  # whatever happens in between
    second = run_trial(spec, tmp_path / "second")
    other = run_trial(spec.model_copy(update={"seed": 2}), tmp_path / "other")

    assert first.status == "ok"
    assert first.error is None
    assert first.val is not None
    assert first.reward == first.val["AP"] > 0.005
    assert without_times(first) == without_times(second)
    assert first.test != first.val
    assert first.iterations == 20 * 16 / 4
    assert set(first.timing) == {"setup", "train", "evaluate"}
    assert all(seconds > 0 for seconds in first.timing.values())

    assert other.fingerprint == first.fingerprint
    assert other.val != first.val


class Last(Hook):
    """Keeps what was trained, and on which images."""

    def __init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.images: set[int] = set()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.images |= {sample.img_id for sample in data_batch["data_samples"]}

    def after_train(self, runner: Any) -> None:
        self.state = copy.deepcopy(dict(runner.model.state_dict()))


def test_a_look_part_of_the_way_changes_nothing_but_may_end_a_trial(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """In the middle of the first of two passes: batch norms, flips and the order go on."""
    lasts: list[Last] = []

    def run(**look: Any) -> TrialResult:
        early_stop = {"at": 0.25, "images": 3, **look} if look else None
        spec = make_spec(schedule={"epochs": 2}, early_stop=early_stop)
        lasts.append(Last())
        return train_and_score(spec, tmp_path, lambda: None, watch=[lasts[-1]])

    plain, looked = run(), run(below=0.0, reward=0.5)
    assert plain.early is None
    assert looked.early is not None
    assert set(looked.timing) == {*plain.timing, "early"}
    assert without_times(looked) == without_times(plain.model_copy(update={"early": looked.early}))
    assert equal(lasts[0].state, lasts[1].state)

    stopped = run(below=1.0, reward=0.5)
    assert (stopped.status, stopped.reward, stopped.val) == ("stopped", 0.5, None)
    assert (stopped.early, stopped.iterations) == (looked.early, 2)
    assert stopped.fingerprint == plain.fingerprint
    assert stopped.error == (
        f"stopped after 2 of 8 iterations: {looked.early:.4f} on 3 images of val is below 1.0000"
    )


def test_a_few_images_may_lack_what_the_reward_is_about(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small objects, say: then nothing is known, which ends no trial."""
    monkeypatch.setattr(training, "_measure", lambda *args, **kwargs: {"AP": 0.25})
    rule, scores = EarlyStop(at=0.5, images=3, below=0.5), []
    for reward in ("AP", {"AP": 1.0, "APs": 1.0}):
        scores.append(score_early(make_spec(reward=reward), rule, tmp_path, print, {}, None))
    assert scores == [0.25, None]


def test_a_cheaper_trial(make_spec: MakeSpec, shapes: DataConfig, tmp_path: Path) -> None:
    """On half of the images with squares, circles or triangles, smaller ones, in half the passes;
    proven and scored like any other."""
    fidelity = Fidelity(images=0.5, image_size=0.5, classes=1, epochs=0.5, val_images=0.5)
    spec = make_spec(fidelity=fidelity, schedule={"epochs": 2, "batch_size": 2})
    (kept,) = spec.reduced().data.classes
    coco = json.loads(shapes.train.annotations.read_text())
    label = shapes.classes.index(kept) + 1
    having = [
        image["id"] for image in coco["images"]
        if any(a["image_id"] == image["id"] and a["category_id"] == label
               for a in coco["annotations"])
    ]  # fmt: skip
    last = Last()
    result = train_and_score(spec, tmp_path, lambda: None, watch=[last])
    assert (result.status, result.error) == ("ok", None)
    assert last.images == {having[k] for k in some_of(len(having), 0.5)}
    assert result.iterations == -(-len(last.images) // 2)
    assert result.fingerprint is not None
    runner = build_runner(spec.reduced(), tmp_path, [])
    assert runner.model.bbox_head.num_classes == 1
    sample = runner.train_dataloader.dataset[0]
    assert sample["inputs"].shape[1:] == (32, 32)
    assert set(sample["data_samples"].gt_instances.labels.tolist()) == {0}


def test_a_reward_of_several_metrics(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The same sum on val and on test, whose detections are kept."""
    weights = {"AP50": 1.0, "oLRP": 3.0}
    changes = {"reward": weights, "evaluate": ("val", "test"), "keep_detections": True}
    result = run_trial(make_spec(**changes), tmp_path)
    assert result.status == "ok", result.error
    for value, found in ((result.reward, result.val), (result.test_reward, result.test)):
        assert found is not None
        assert value == pytest.approx((found["AP50"] + 3 * (1 - found["oLRP"])) / 4)
    rows, images = load_detections(tmp_path / DETECTIONS)
    assert images == list(range(1, 9))
    again = average_precision(make_spec().data.test.annotations, rows, images, REFERENCE)
    assert result.test is not None
    assert again == pytest.approx({name: result.test[name] for name in again}, abs=1e-12)


def test_a_reward_that_cannot_be_measured_fails_the_trial(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """No shape is as large as 96 x 96. Detections are kept where they are asked for, only."""
    result = run_trial(make_spec(reward="APl"), tmp_path)
    assert (result.status, result.reward) == ("failed", None)
    assert "the reward needs APl, which is not defined on this split" in str(result.error)
    assert not (tmp_path / DETECTIONS).exists()


@pytest.mark.parametrize("changes", [{}, BASELINE], ids=["theta", "baseline"])
def test_weights_repeat_themselves_to_the_last_bit(
    make_spec: MakeSpec, tmp_path: Path, changes: Any
) -> None:
    first, second, other = (
        weights(make_spec(**changes, seed=seed), tmp_path / str(index))
        for index, seed in enumerate((1, 1, 2))
    )
    assert equal(first, second)
    assert not equal(first, other)


def test_theta_is_trained_on(make_spec: MakeSpec, theta: tuple[float, ...], tmp_path: Path) -> None:
    """All else equal, another gradient scale gives another detector."""
    other = (*theta[:-1], theta[-1] - 0.2)
    one, two = (weights(make_spec(theta=each), tmp_path / str(each[-1])) for each in (theta, other))
    assert not equal(one, two)


def test_all_candidates_of_a_seed_start_alike(make_spec: MakeSpec, tmp_path: Path) -> None:
    one, two, other = (
        weights(spec, tmp_path / str(index), trained=False)
        for index, spec in enumerate((make_spec(), make_spec(**BASELINE), make_spec(seed=2)))
    )
    assert equal(one, two)
    assert not equal(one, other)


def test_weights_that_no_init_cfg_names_are_the_seeds_too(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """They come from the layers' constructors, before mmengine has seeded anything."""
    spec = make_spec()
    model = spec.detector.model
    model = {**model, "bbox_head": {**model["bbox_head"], "init_cfg": None}}
    spec = make_spec(detector=spec.detector.model_copy(update={"model": model}))
    one = weights(spec, tmp_path / "one", trained=False)
    torch.rand(5)
    assert equal(one, weights(spec, tmp_path / "other", trained=False))


def test_no_reward_sees_the_test_split(
    make_spec: MakeSpec, copy_data: Callable[[Path], DataConfig], tmp_path: Path
) -> None:
    data = copy_data(tmp_path / "data")
    data.test.annotations.unlink()
    result = run_trial(make_spec(data=data), tmp_path / "trial")
    assert result.status == "ok"
    assert result.test is None


@pytest.mark.parametrize("changes", [{}, BASELINE], ids=["theta", "baseline"])
def test_bfloat16_trains_without_a_gpu(make_spec: MakeSpec, tmp_path: Path, changes: Any) -> None:
    spec = make_spec(**changes, schedule={"amp": True})
    result = run_trial(spec, tmp_path / "trial")
    assert result.error is None
    assert result.status == "ok"
    other = make_spec(**changes)
    assert result.fingerprint == run_trial(other, tmp_path / "other").fingerprint
    assert not equal(weights(spec, tmp_path / "amp"), weights(other, tmp_path / "full"))


@pytest.mark.parametrize("changes", [{}, BASELINE], ids=["theta", "baseline"])
def test_a_nan_loss_ends_a_trial_early(make_spec: MakeSpec, tmp_path: Path, changes: Any) -> None:
    """A step of this size overflows the weights, and the loss is NaN from then on."""
    result = run_trial(
        make_spec(**changes, schedule=LONG | {"learning_rate": 1e30}), tmp_path / "trial"
    )
    assert result.status == "diverged"
    assert result.reward == 0.0
    assert result.val is None
    assert result.error is not None
    assert re.match("loss_(pap|cls) was NaN or within 1e-6 of 1 on 51 of", result.error)
    assert 51 <= result.iterations <= 55
    assert f"of {result.iterations} iterations" in result.error
    assert result.fingerprint is not None
    assert set(result.timing) == {"setup", "train"}


def test_a_loss_stuck_at_one_ends_a_trial_early(
    make_spec: MakeSpec, theta: tuple[float, ...], tmp_path: Path
) -> None:
    """I1 = I3 = 0 below 1: no box is worth anything, and the loss is 1 without a gradient."""
    stuck = list(theta)
    names = family_of({"type": "parameterized_ap"}).names
    for index, name in enumerate(names):
        curve, _, point = name.partition(".")
        if curve in ("I1", "I3"):
            stuck[index] = 1.0 if point.startswith("x") else 0.0
    assert {"I1", "I3"} < set(CURVES)
    result = run_trial(make_spec(theta=stuck, schedule=LONG), tmp_path / "trial")
    assert result.status == "diverged"
    assert result.reward == 0.0
    assert result.iterations == 51
    assert result.error == "loss_pap was NaN or within 1e-6 of 1 on 51 of 51 iterations"


def test_a_schedule_for_another_detector_is_found_before_any_trial(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    paramwise = ParamwiseConfig(custom_keys={"reference_points": {"lr_mult": 0.1}})
    spec = make_spec(schedule={"paramwise": paramwise})
    for begin in (check_task, lambda spec: build_runner(spec, tmp_path, [])):
        with pytest.raises(BadConfig, match="no parameter of this detector has 'reference_points'"):
            begin(spec)


def test_a_short_trial_may_diverge_too(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Which a look part of the way leaves to the rule."""
    schedule = {"learning_rate": 1e30, "warmup_iterations": 0}
    look = EarlyStop(at=0.75, images=3, below=0.5, reward=0.1)
    result = run_trial(make_spec(schedule=schedule, early_stop=look), tmp_path / "trial")
    assert result.status == "diverged"
    assert result.early == 0.0
    assert result.reward == 0.0
    assert result.iterations == 4
    assert result.error == "the loss was nan on the last of 4 iterations"


ALRP = {"criterion": {"type": "alrp"}, "theta": None}
WEIGHT, SUMS = (f"bbox_head.criterion.{name}" for name in ("localization_weight", "epoch_sums"))


class Losses(Hook):
    """Keeps the losses of every iteration."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.seen.append({name: loss.item() for name, loss in outputs.items()})


def test_self_balancing_follows_the_epochs(make_spec: MakeSpec, tmp_path: Path) -> None:
    """50 in the first; then (mean classification + localisation) / localisation of the last."""
    losses, weight = Losses(), 50.0
    runner = build_runner(make_spec(**ALRP, schedule={"epochs": 2}), tmp_path, [losses])
    assert runner.model.state_dict()[WEIGHT] == weight
    runner.train()
    assert len(losses.seen) == 2 * 4
    for epoch in (losses.seen[:4], losses.seen[4:]):
        classification = sum(each["loss_cls"] for each in epoch)
        localization = sum(each["loss_bbox"] / weight for each in epoch)
        weight = (classification + localization) / localization
    assert runner.model.state_dict()[WEIGHT].item() == pytest.approx(weight, rel=1e-5)
    assert not runner.model.state_dict()[SUMS].any()


def test_self_balancing_survives_a_resume(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The second epoch has the weight that the first one says, also after a checkpoint."""
    steady = {"augmentation": "none", "warmup_iterations": 0}

    def train(folder: str, epochs: int, resume: bool = False) -> dict[str, torch.Tensor]:
        spec = make_spec(**ALRP, schedule=steady | {"epochs": epochs})
        train_in_full(spec, tmp_path / folder, resume=resume, say=lambda line: None)
        checkpoint = tmp_path / folder / f"epoch_{epochs}.pth"
        return torch.load(checkpoint, weights_only=False)["state_dict"]

    first = train("interrupted", 1)
    assert first[WEIGHT] != 50
    assert not first[SUMS].any()
    assert equal(train("interrupted", 2, resume=True), train("whole", 2))


class ForgetsTheScale(CriterionRetinaHead):
    def __init__(self, *args: Any, criterion: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, criterion=criterion | {"gradient_scale": 1.0}, **kwargs)


def test_a_trial_is_not_trained_on_something_else(
    make_spec: MakeSpec, use_head: Callable[[type], None], tmp_path: Path
) -> None:
    use_head(ForgetsTheScale)
    result = run_trial(make_spec(), tmp_path / "trial")
    assert result.status == "failed"
    assert result.reward is None
    assert result.error is not None
    assert result.error.startswith("ThetaNotApplied: the head bbox_head trains on something else")
    assert result.iterations == 0


def test_an_exception_becomes_one_line(
    make_spec: MakeSpec, copy_data: Callable[[Path], DataConfig], tmp_path: Path
) -> None:
    data = copy_data(tmp_path / "data")
    data.train.annotations.unlink()
    result = run_trial(make_spec(data=data), tmp_path / "trial")
    assert result == TrialResult(status="failed", error=result.error)
    assert result.error is not None
    assert "train.json" in result.error
    assert "\n" not in result.error
    assert "Traceback" in (tmp_path / "trial" / "error.txt").read_text()


def test_progress_is_told_all_the_way(make_spec: MakeSpec, tmp_path: Path) -> None:
    calls: list[None] = []
    spec = make_spec(evaluate=("val", "test"))
    result = run_trial(spec, tmp_path / "trial", lambda: calls.append(None))
    # 4 iterations, and two splits of 8 images in batches of 4.
    assert result.iterations == 4
    assert len(calls) >= 4 + 2 + 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trial_uses_the_threads_it_has(make_spec: MakeSpec, tmp_path: Path, threads: int) -> None:
    seen = []

    def look() -> None:
        seen.append(torch.get_num_threads())
        raise RuntimeError("seen enough")

    result = run_trial(make_spec(threads=threads), tmp_path / "trial", look)
    torch.set_num_threads(1)
    assert result.error == "RuntimeError: seen enough"
    assert seen == [threads]


def test_weights_of_trials_are_not_kept(make_spec: MakeSpec, tmp_path: Path) -> None:
    run_trial(make_spec(), tmp_path / "trial")
    files = [path for path in (tmp_path / "trial").rglob("*") if path.is_file()]
    assert files, "there is a log"
    assert sum(path.stat().st_size for path in files) < 1e5


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, BASELINE], ids=["theta", "baseline"])
def test_a_detector_learns_its_training_images(
    make_spec: MakeSpec, shapes: DataConfig, tmp_path: Path, changes: Any
) -> None:
    """Boxes, labels, flips and scores fit together, or it could not."""
    data = shapes.model_copy(update={"val": shapes.train})
    schedule = {"epochs": 60, "learning_rate": 0.01, "warmup_iterations": 10}
    result = run_trial(make_spec(**changes, data=data, schedule=schedule), tmp_path / "trial")
    assert result.reward is not None
    assert result.reward > 0.2
