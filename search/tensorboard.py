"""What TensorBoard shows: the search by round, and every trial's curves over each other.

Each round, and each trial's curves, live in an event file of their own that carries the name of
what it holds. Writing it again after a resume replaces that file, so no point is there twice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorboardX  # type: ignore[import-untyped, unused-ignore]

from search.curves import Points, evaluate


class RoundWriter:
    """Writes the driver's scalars, one event file a round, into `folder`.

    Args:
        names: the names of theta's coordinates, in the order of a policy's mean.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        self.names = list(names)

    def write_round(
        self,
        round: int,
        rewards: Sequence[float],
        *,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        baseline: float | None = None,
        start: float | None = None,
    ) -> None:
        """Write, or write again, what one round gave.

        Args:
            round: the step of every scalar.
            rewards: those of the round that count: 0 for a diverged trial, none for a failed one.
            mean, std: the policy that the round was drawn from.
            baseline, start: their mean rewards, where they are known.
        """
        scalars: dict[str, float] = {}
        if rewards:
            scalars["reward/mean"] = float(np.mean(rewards))
            scalars["reward/best"] = float(np.max(rewards))
            scalars["reward/std"] = float(np.std(rewards))
        for name, value in (("baseline", baseline), ("start", start)):
            if value is not None:
                scalars[f"reward/{name}"] = value
        names = self.names if len(self.names) == len(mean) else list(map(str, range(len(mean))))
        scalars |= {f"policy_mean/{name}": x for name, x in zip(names, mean, strict=True)}
        scalars |= {f"policy_std/{name}": x for name, x in zip(names, std, strict=True)}
        _write(self.folder, f".round-{round:03d}", {tag: {round: x} for tag, x in scalars.items()})


def write_trial_curves(folder: Path, control_points: Mapping[str, Points]) -> None:
    """Write a trial's curves as scalars `curves/<name>` into its folder.

    The step is x in percent (0 to 100), so that TensorBoard lays the trials over each other.
    """
    percent = range(101)
    values = {
        name: evaluate(points, np.linspace(0, 1, 101)) for name, points in control_points.items()
    }
    _write(
        folder,
        ".curves",
        {f"curves/{name}": dict(zip(percent, ys, strict=True)) for name, ys in values.items()},
    )


def _write(folder: Path, suffix: str, scalars: Mapping[str, Mapping[int, float]]) -> None:
    """Put `scalars` (tag: {step: value}) into the one event file of `folder` named by `suffix`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"events.out.tfevents.*{suffix}"):
        stale.unlink()
    with tensorboardX.SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for tag, points in scalars.items():
            for step, value in points.items():
                writer.add_scalar(tag, float(value), step)
