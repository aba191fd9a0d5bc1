"""What can be known before a trial is spent is checked before a trial is spent."""

import contextlib
import io
from collections.abc import Iterator

from paploss.errors import BadConfig, BadData
from search.algorithms import check_algorithm
from search.config import SearchConfig
from search.run.trackers import check_trackers
from trainers.config import TaskConfig
from trainers.datasets.check import DatasetReport
from trainers.datasets.coco import DataConfig
from trainers.datasets.findings import check_for_training
from trainers.reward import Reward, weights_of
from trainers.trial import TrialSpec


def check_before_trials(config: SearchConfig, task: TaskConfig) -> Iterator[str]:
    """Check data, detector and criterion; lines to show on the way.

    Raises:
        BadData: the data set cannot be trained or scored on.
        BadConfig: the detector cannot be built, or a criterion does not reach its training; the
            algorithm lacks a package; a tracker cannot be reported to.
    """
    check_algorithm(config.algorithm)
    check_trackers(config.trackers)
    yield from check_data(task.data, task.reward)
    yield from check_search(config, task)


def check_data(data: DataConfig, reward: Reward) -> Iterator[str]:
    """Open the data set as training would; lines to show.

    Raises:
        BadData: it cannot be trained on, or `reward` cannot be measured on it.
    """
    findings = check_for_training(data)
    yield from findings.lines()
    _check_reward(reward, findings.report)


def check_search(config: SearchConfig, task: TaskConfig) -> Iterator[str]:
    """Prove what a search trains, its start and its baseline; lines to show.

    Raises:
        BadConfig: see `check_spec`.
    """
    trained = {"criterion": (task.criterion, task.start), "baseline": (task.baseline, None)}
    for role, (criterion, theta) in trained.items():
        spec = TrialSpec(
            detector=task.detector,
            data=task.data,
            schedule=task.schedule,
            criterion=criterion,
            theta=theta,
            seed=config.seed,
        )
        check_spec(spec, f"detector {task.detector.name} with the search's {role}: ")
    yield task.schedule.describe_on(config.resources.workers)
    yield (
        f"{task.detector.name} trains on its theta (probe passed); {len(task.start)} coordinates, "
        f"{config.algorithm.rounds} rounds of {config.algorithm.samples} trials"
    )


def check_spec(spec: TrialSpec, prefix: str = "") -> None:
    """Build a trial's detector and send the probe batch through it.

    Raises:
        BadConfig: it cannot be built, or its criterion does not reach its training; the latter is
            said after `prefix`.
    """
    # mmdet prints what optional packages it misses.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from trainers.mmdet.probe import ThetaNotApplied
        from trainers.mmdet.training import check_task

    try:
        check_task(spec)
    except (ThetaNotApplied, ValueError, TypeError) as error:
        raise BadConfig(f"{prefix}{error}") from error


def _check_reward(reward: Reward, report: DatasetReport | None) -> None:
    """Raise BadData if val or test has no object of a size that the reward is measured on."""
    if report is None:
        return
    for split in ("val", "test"):
        sizes = report.splits[split].boxes_per_size
        absent = [metric for metric in weights_of(reward) if sizes.get(metric) == 0]
        if absent:
            raise BadData(
                f"the reward needs {', '.join(absent)}, but {split} has no object of that size "
                "(COCO's borders are 32 x 32 and 96 x 96 pixels), so every trial would fail. "
                "Choose another `reward`."
            )
