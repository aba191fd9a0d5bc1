"""The trials of fidelities.py: ordinary ones, of which full ones are looked at part of the way.

A module for `trainers.worker.TrialProcess`. Beside the result, `measured.json` in a trial's folder
has the seconds that it took of a CPU and, by (part of the iterations, images), the early scores.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paploss.files import write_json
from trainers.distributed import ALONE, Worker
from trainers.early_stop import EarlyStop
from trainers.mmdet.hooks import ScorePartWay
from trainers.mmdet.training import score_early, train_and_score
from trainers.trial import TrialResult, TrialSpec, failure, preload

__all__ = ["preload", "run_trial"]

LOOKS = [EarlyStop(at=at, images=images) for at in (0.25, 0.5) for images in (20, 40, 80)]
MEASURED = "measured.json"


class Look(ScorePartWay):
    """Keeps the CPU's seconds of its score."""

    def __init__(self, rule: EarlyStop, measure: Callable[[Any], float | None]) -> None:
        super().__init__(rule, self._timed)
        self.rule = rule
        self.cpu = 0.0
        self._scored = measure

    def _timed(self, runner: Any) -> float | None:
        begun = time.process_time()
        score = self._scored(runner)
        self.cpu = time.process_time() - begun
        return score


def run_trial(
    spec: TrialSpec, folder: Path, progress: Callable[[], None], worker: Worker = ALONE
) -> TrialResult:
    def measured_by(rule: EarlyStop) -> Callable[[Any], float | None]:
        return lambda runner: score_early(spec, rule, folder, progress, {}, runner)

    looks = [Look(rule, measured_by(rule)) for rule in LOOKS if spec.fidelity is None]
    begun = time.process_time()
    try:
        result = train_and_score(spec, folder, progress, worker, looks)
    except Exception as error:  # as in `trainers.trial`
        return failure(error)
    cpu = time.process_time() - begun - sum(look.cpu for look in looks)
    early = [
        {"at": look.rule.at, "images": look.rule.images, "score": look.score, "cpu": look.cpu}
        for look in looks
    ]
    write_json(folder / MEASURED, {"cpu": cpu, "early": early})
    return result
