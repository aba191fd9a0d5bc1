"""A trial: one training run of one criterion, to one reward. Knows no Ray.

`TrialSpec` is all that a trial depends on and `TrialResult` all that it gives, both plain data,
so that a trial can run in this process, in a child, or on another machine.
"""

import contextlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from loss.by_head import family_of
from loss.criterion import Family
from paploss.files import is_of_storage, storage_reason
from paploss.strict import StrictModel
from trainers.config import DetectorConfig, ScheduleConfig
from trainers.datasets.coco import DataConfig
from trainers.distributed import ALONE, PeersLost, Worker, is_of_peers
from trainers.early_stop import EarlyStop
from trainers.fidelity import Fidelity
from trainers.reward import Reward

Split = Literal["val", "test"]


class TrialSpec(StrictModel):
    """What a trial trains, on what, and on which splits it is scored.

    Attributes:
        criterion: a family's settings where there is a theta, else a criterion's.
        theta: [D] in the unit cube, or None: nothing is searched (the baseline).
        seed: decides initial weights, order of images and augmentation.
        evaluate: the splits to score; the reward comes from "val".
        reward: what is made of the metrics of a split (`trainers.reward`).
        keep_detections: write those on "test" to the trial's folder.
        fidelity: what part of a full trial this is; None: all of it.
        early_stop: when to look at it part of the way, and what ends it there.
        threads: of torch on the CPU, for each worker.
    """

    detector: DetectorConfig
    data: DataConfig
    criterion: dict[str, Any]
    theta: tuple[float, ...] | None = None
    schedule: ScheduleConfig
    seed: int = Field(ge=0, lt=2**32)
    evaluate: tuple[Split, ...] = ("val",)
    reward: Reward = "AP"
    keep_detections: bool = False
    fidelity: Fidelity | None = None
    early_stop: EarlyStop | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(1, ge=1)

    @property
    def family(self) -> Family | None:
        """The family that theta belongs to."""
        return None if self.theta is None else family_of(self.criterion)

    @property
    def criterion_settings(self) -> dict[str, Any]:
        """Settings of what this trial trains with: one criterion, or one for each head."""
        if self.theta is None:
            return self.criterion
        return family_of(self.criterion).settings(self.theta)

    def reduced(self) -> "TrialSpec":
        """The trial with its fidelity carried out on data and schedule.

        What is left in `fidelity` are the parts of the images, which data sets take for themselves.

        Raises:
            ValueError, BadData: the data set has too few classes, or cannot be read.
        """
        if self.fidelity is None:
            return self
        return self.model_copy(
            update={
                "data": self.fidelity.data(self.data),
                "schedule": self.fidelity.schedule(self.schedule),
                "fidelity": self.fidelity.images_only,
            }
        )


class TrialResult(StrictModel):
    """How a trial ended.

    Attributes:
        status: "ok"; "diverged" (reward 0: evidence that theta is bad); "stopped" (by the look
            part of the way, with the reward given there); "failed" (no evidence); "lost" (storage
            could not be written: to be run again, never recorded).
        reward: of the search validation split, in [0, 1]; None where failed.
        test_reward: the same of the third split; None where that was not scored.
        early: the same of some images of val, part of the way; None where nobody has looked, or
            the reward is not defined on these images.
        val, test: COCO's and oLRP's metrics by name, of the splits that were scored.
        fingerprint: hash of what the head did with the probe batch.
        timing: seconds by part: setup, train, early (the look part of the way), evaluate.
        skipped_images: images that could not be read, with the reason.
        error: one line, where it is not ok.
    """

    status: Literal["ok", "diverged", "stopped", "failed", "lost"]
    reward: float | None = Field(None, ge=0, le=1)
    test_reward: float | None = Field(None, ge=0, le=1)
    early: float | None = Field(None, ge=0, le=1)
    val: dict[str, float] | None = None
    test: dict[str, float] | None = None
    fingerprint: str | None = None
    iterations: int = 0
    timing: dict[str, float] = Field(default_factory=dict)
    skipped_images: dict[str, str] = Field(default_factory=dict)
    error: str | None = None


class Diverged(Exception):
    """The criterion has collapsed: training on cannot help."""


class Stopped(Exception):
    """The score part of the way is too low: training on is not worth it."""

    def __init__(self, why: str, reward: float) -> None:
        super().__init__(why)
        self.reward = reward


def preload() -> None:
    """Import what a trial needs, without a thread or a GPU: processes are forked off afterwards."""
    from trainers.mmdet.training import preload as preload_training

    preload_training()


def run_trial(
    spec: TrialSpec, folder: Path, progress: Any = None, worker: Worker = ALONE
) -> TrialResult:
    """Train and score one criterion in this process; whatever happens becomes a result.

    Args:
        folder: where the trial's log and lists of skipped images go; made if missing.
        progress: called without arguments as the trial gets on, several times a minute.
        worker: which of the processes that train the trial this one is. The first has the scores;
            each has the images that it has skipped.

    Raises:
        PeersLost: another worker has left the trial; what has happened is that one's to tell.
    """
    # mmdet takes seconds to import and is only needed where trials run.
    from trainers.mmdet.training import train_and_score

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return train_and_score(spec, folder, progress or (lambda: None), worker)
    except Exception as error:  # what a trial does must never end a search
        import traceback

        if worker.size > 1 and is_of_peers(error):
            raise PeersLost(one_line(error)) from error
        with contextlib.suppress(OSError):
            (folder / worker.own("error.txt")).write_text(traceback.format_exc(), encoding="utf-8")
        return failure(error)


def failure(error: BaseException) -> TrialResult:
    """What a trial that ended with `error` gives."""
    if is_of_storage(error):
        return TrialResult(status="lost", error=storage_reason(error))
    return TrialResult(status="failed", error=one_line(error))


def one_line(error: BaseException) -> str:
    """'Type: message' in one line of at most 500 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
