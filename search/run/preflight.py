"""What can be known before a trial is spent is checked before a trial is spent."""

import contextlib
import io
from collections.abc import Iterator

from paploss.errors import BadConfig
from search.config import SearchConfig
from trainers.config import TaskConfig, parameterization
from trainers.datasets.check import check_dataset
from trainers.trial import TrialSpec


def check_before_trials(config: SearchConfig, task: TaskConfig) -> Iterator[str]:
    """Check data, detector and criterion; lines to show on the way.

    Raises:
        BadData: the data set cannot be trained or scored on.
        BadConfig: the detector cannot be built, or a criterion does not reach its training.
    """
    yield from check_dataset(task.data).lines()
    # mmdet prints what optional packages it misses.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from trainers.mmdet.probe import ThetaNotApplied
        from trainers.mmdet.training import check_task

    start = parameterization(task.criterion).start
    for criterion, theta in ((task.criterion, start), (task.baseline, None)):
        spec = TrialSpec(
            detector=task.detector,
            data=task.data,
            schedule=task.schedule,
            criterion=criterion,
            theta=theta,
            seed=config.seed,
        )
        try:
            check_task(spec)
        except (ThetaNotApplied, ValueError, TypeError) as error:
            raise BadConfig(
                f"detector {task.detector.name} with criterion {criterion['type']}: {error}"
            ) from error
    yield (
        f"{task.detector.name} trains on its theta (probe passed); {len(start)} coordinates, "
        f"{config.algorithm.rounds} rounds of {config.algorithm.samples} trials"
    )
