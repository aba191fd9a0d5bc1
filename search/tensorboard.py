"""What TensorBoard shows: the search by round, and every trial's scores and curves.

Each round, and each trial, has an event file of its own that carries the name of what it holds.
Writing it again after a resume replaces that file, so no point is there twice.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tensorboardX  # type: ignore[import-untyped, unused-ignore]
from matplotlib.figure import Figure

from paploss.files import open_atomic
from search.curves import STYLE, Points, draw_curves, evaluate
from search.dashboard.policy import control_points, curve_coordinates
from search.headline import draw_rewards, start_curves
from search.history import History
from search.hparams import experiment_summary, trial_summaries

TRIAL = ".trial"
"""The suffix of a trial's event file."""


def write_columns(folder: Path, names: Sequence[str]) -> None:
    """Write the columns of the HParams page into `folder`, for all trials.

    Args:
        names: of theta's coordinates.
    """
    with _writer(folder, ".hparams") as writer:
        writer.file_writer.add_summary(experiment_summary(names))


def write_round(folder: Path, history: History, round: int, figures: bool = True) -> None:
    """Write, or write again, what one round gave, into `folder`.

    Scalars `reward/...`, `trials/...`, `policy/...` with the round as their step: theta's
    coordinates are grouped by their curve, `policy_H2/x1`. Figures: the curves of the policy's
    mean, one a round, and all rewards so far.

    Args:
        figures: draw them; that takes a quarter of a second of a CPU.
    """
    policy = history.policy[history.policy["round"] == round]
    mean = {name: float(x) for name, x in zip(policy["coordinate"], policy["mean"], strict=True)}
    scalars = _rewards(history, round)
    for name, value in mean.items():
        curve, _, coordinate = name.rpartition(".")
        scalars[f"policy{'_' if curve else ''}{curve}/{coordinate}"] = value
    if len(policy):
        scalars["policy/sigma"] = float(policy["std"].mean())
    curves = mean_curves(mean)
    with _writer(folder, f".round-{round:03d}") as writer:
        for tag, scalar in scalars.items():
            writer.add_scalar(tag, scalar, round)
        if curves and figures:
            start = start_curves(history)
            heads = len({name.rpartition(".")[0] for name in curves})
            size = (9.0, 6.0) if heads == 1 else (11.0, 2.7 * heads)
            figure = _drawn(size, lambda figure: draw_curves(figure, curves, start))
            writer.add_figure("figures/policy_curves", figure, round, close=False)
    if figures and (history.trials["phase"] == "search").any():
        with _writer(folder, ".rewards") as writer:
            figure = _drawn((9.0, 5.0), lambda figure: draw_rewards(figure, history))
            writer.add_figure("figures/rewards", figure, round, close=False)


def write_trial(folder: Path, record: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write, or write again, a trial's scores, its HParams, and its curves, into its folder.

    The step of `curves/<name>` is x in percent (0 to 100), so that TensorBoard lays the trials
    over each other.

    Args:
        record: of the journal.
        names: of theta's coordinates.
    """
    percent, grid = range(101), np.linspace(0, 1, 101)
    with _writer(folder, TRIAL) as writer:
        for summary in trial_summaries(record, names):
            writer.file_writer.add_summary(summary)
        for tag, value in _scores(record).items():
            writer.add_scalar(tag, value, 0)
        for name, points in (record["control_points"] or {}).items():
            for step, y in zip(percent, evaluate(points, grid), strict=True):
                writer.add_scalar(f"curves/{name}", float(y), step)


def mean_curves(theta: Mapping[str, float]) -> dict[str, Points]:
    """The control points by curve of a theta by coordinate name; empty where it has no curves."""
    values = np.array(list(theta.values()))
    return {
        curve: control_points(values[places]).tolist()
        for curve, places in curve_coordinates(list(theta)).items()
    }


def _rewards(history: History, round: int) -> dict[str, float]:
    """Scalars of a round: its rewards beside baseline and start, and how its trials went."""
    trials = history.trials
    search = trials[trials["phase"] == "search"]
    here = search[search["round"] == round]
    rewards, so_far = here["reward"].dropna(), search.loc[search["round"] <= round, "reward"]
    scalars: dict[str, float] = {}
    if len(rewards):
        scalars["reward/mean"] = float(rewards.mean())
        scalars["reward/best"] = float(rewards.max())
        scalars["reward/std"] = float(rewards.std(ddof=0))
    if so_far.notna().any():
        scalars["reward/best_so_far"] = float(so_far.max())
    for phase in ("baseline", "start"):
        level = trials.loc[trials["phase"] == phase, "reward"].dropna()
        if len(level):
            scalars[f"reward/{phase}"] = float(level.mean())
    if len(here):
        scalars["trials/seconds"] = float(here["seconds"].mean())
        for status in ("diverged", "stopped", "failed"):
            scalars[f"trials/{status}"] = float((here["status"] == status).sum())
    rung = trials[(trials["phase"] == "rung") & (trials["round"] == round)]
    if rung["reward"].notna().any():
        scalars["reward/rung_mean"] = float(rung["reward"].mean())
    for samples in history.samples:
        if samples.round == round:
            scalars["samples/drawn"] = float(samples.drawn)
            scalars["samples/rejected"] = float(len(samples.rejected))
    return scalars


def _scores(record: Mapping[str, Any]) -> dict[str, float]:
    scores = {"trial/reward": record["reward"], "trial/seconds": record["seconds"]}
    for split in ("val", "test"):
        scores |= {f"{split}/{name}": value for name, value in (record[split] or {}).items()}
    # COCO's -1 says that there is nothing of that size to be found.
    return {tag: x for tag, x in scores.items() if x is not None and x >= 0}


def _drawn(size: tuple[float, float], draw: Any) -> Figure:
    with matplotlib.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure = Figure(figsize=size, dpi=100)
        draw(figure)
        figure.canvas.draw()
    return figure


@contextlib.contextmanager
def _writer(folder: Path, suffix: str) -> Iterator[Any]:
    """A writer of the one event file of `folder` named by `suffix`; an older one is replaced.

    Written elsewhere and put there whole: on a full disk tensorboardX's thread dies with a
    traceback, and what it has left in its queue keeps the process from ending.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as aside:
        with tensorboardX.SummaryWriter(aside, filename_suffix=suffix) as writer:
            yield writer
        (written,) = Path(aside).iterdir()
        stale = set(folder.glob(f"events.out.tfevents.*{suffix}")) - {folder / written.name}
        with open_atomic(folder / written.name) as file:
            file.write(written.read_bytes())
    for path in stale:
        path.unlink()
