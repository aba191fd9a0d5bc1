"""What preflight.py has found, as tables and as a figure."""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from benchmarks.measure import cpu_model, head, row
from loss.criterion import Criterion, build_criterion
from loss.preflight import LIMITS, examine_criterion, standard_scene
from loss.simulation import simulate
from paploss.configs import find
from paploss.files import read_yaml

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TRAINED = Path("benchmarks/results/ablations/shapes.csv")
TUNED, HELD_OUT = "tuned on", "held out"
_BAD = 0.25  # of the start's reward
_ALIVE = 0.1  # rewards above it are of detectors that have begun to train
_CHOICES = 8  # thetas of which the simulation takes the best


def summary(trials: pd.DataFrame, start: float) -> dict[str, str]:
    """What a table's column says of a group of trials."""
    reward, rejected = trials["reward"], trials["stage"] != ""
    alive = reward > _ALIVE
    groups = {
        f"bad (reward below {_BAD * start:.3f}) rejected": reward < _BAD * start,
        f"good (above the start's {start:.3f}) lost": reward > start,
        "top quarter lost": reward >= reward.quantile(0.75),
        "all rejected": reward >= 0,
    }
    return {
        "trials": str(len(trials)),
        **{name: f"{(rejected & which).sum()} of {which.sum()}" for name, which in groups.items()},
        "of these by the gradient stage": str((trials["stage"] == "gradient").sum()),
        "bad rejected by the gradient stage alone": _share(
            (trials["stage"] == "gradient") & (reward < _BAD * start), reward < _BAD * start
        ),
        "bad rejected by the simulation alone": _share(
            trials["low_ap"] & (reward < _BAD * start), reward < _BAD * start
        ),
        "Spearman, simulated AP and reward": _rho(trials),
        f"... of rewards above {_ALIVE}": _rho(trials[alive]),
        "... of those that pass": _rho(trials[~rejected]),
        "mean reward": f"{reward.mean():.3f}",
        "mean reward of those that pass": f"{reward[~rejected].mean():.3f}",
        f"expected reward of the best of {_CHOICES} by simulation": f"{best_of(trials):.3f}",
    }


def _share(hit: pd.Series, of: pd.Series) -> str:
    return f"{hit.sum()} of {of.sum()}"


def _rho(trials: pd.DataFrame) -> str:
    if len(trials) < 4:
        return "-"
    rho = float(spearmanr(trials["ap"], trials["reward"]).statistic)
    # Fisher's transformation, with the variance that Bonett and Wright give for Spearman's rho.
    error = np.sqrt((1 + rho**2 / 2) / (len(trials) - 3))
    low, high = np.tanh(np.arctanh(rho) + 1.96 * error * np.array([-1, 1]))
    return f"{rho:.2f} [{low:.2f}, {high:.2f}]"


def best_of(trials: pd.DataFrame) -> float:
    """Expected reward of the theta with the highest simulated AP among `_CHOICES` random ones."""
    rewards = trials.sort_values("ap")["reward"].to_numpy()
    n, k = len(rewards), min(_CHOICES, len(rewards))
    # P(the one of rank r is the best of k without replacement) = C(r, k - 1) / C(n, k).
    ranks = np.arange(n)
    logs = np.array([_log_choose(r, k - 1) for r in ranks]) - _log_choose(n, k)
    return float((np.exp(logs) * rewards).sum())


def _log_choose(n: int, k: int) -> float:
    return (
        float(np.log(np.arange(n - k + 1, n + 1)).sum() - np.log(np.arange(1, k + 1)).sum())
        if (n >= k)
        else -np.inf
    )


class Negative(Criterion):
    """A criterion's losses with the other sign."""

    def __init__(self, of: Criterion) -> None:
        super().__init__()
        self.of, self.activation = of, of.activation

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return {name: -value for name, value in self.of(batch).items()}


def known_losses() -> Mapping[str, dict[str, Any]]:
    """By their names in benchmarks/results/ablations/shapes.csv, where they were trained."""
    published = read_yaml(find("presets", "parameterized_ap_retinanet_coco"))
    softmax = {"type": "standard", "classification": "cross_entropy", "activation": "softmax"}
    return {
        "Focal + GIoU": {"type": "focal_giou"},
        "Focal + L1": {"type": "standard", "boxes": {"l1": 1.0}},
        "CE + GIoU": {"type": "standard", "classification": "cross_entropy"},
        "softmax CE + GIoU": softmax,
        "AP Loss + GIoU": {"type": "ap"},
        "aLRP Loss": {"type": "alrp"},
        "NDCG + GIoU": {"type": "ndcg"},
        "CSE-AutoLoss-A": {"type": "cse_autoloss_a"},
        "CSE-AutoLoss-B": {"type": "cse_autoloss_b"},
        "linear (the start of a search)": {"type": "parameterized_ap"},
        "square": {"type": "parameterized_ap", "control_points": "square"},
        "sqrt": {"type": "parameterized_ap", "control_points": "sqrt"},
        "sigmoid": {"type": "parameterized_ap", "control_points": "sigmoid"},
        "published curves": published,
        "published curves, gradient scale 1": published | {"gradient_scale": 1.0},
        "published curves, IoU": published | {"localization": "iou"},
        "published curves, L1": published | {"localization": "l1"},
        "published curves, denominator free": published | {"detach_denominator": False},
    }


def known_rows() -> Iterator[str]:
    real = pd.read_csv(TRAINED).groupby("row")["test_AP"].mean().fillna(0.0)
    yield head(["loss", "AP of real trainings", "simulated AP", "preflight", "its negative"])
    pairs = []
    for name, settings in known_losses().items():
        built = build_criterion(settings)
        ap = simulate(built, standard_scene()).ap
        verdicts = [examine_criterion(each) for each in (built, Negative(built))]
        if name in real:
            pairs.append((real[name], ap))
        known = f"{real[name]:.3f}" if name in real else "-"
        yield row([name, known, f"{ap:.3f}", *(verdict or "passes" for verdict in verdicts)])
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    yield f"\nSpearman over the {len(pairs)} that were trained: {rho:.2f}."


def figure(trials: pd.DataFrame, path: Path) -> None:
    groups = [group for group in (TUNED, HELD_OUT) if (trials["group"] == group).any()]
    plot, axes = plt.subplots(1, len(groups), figsize=(5.5 * len(groups), 4.6), squeeze=False)
    kinds = {"": ("passes", "tab:blue", "o"), "gradient": ("rejected: gradient", "tab:red", "x")}
    kinds["simulation"] = ("rejected: simulation", "tab:orange", "^")
    for axis, group in zip(axes[0], groups, strict=True):
        own = trials[trials["group"] == group]
        for stage, (label, colour, marker) in kinds.items():
            of = own[own["stage"] == stage]
            axis.scatter(
                of["ap"], of["reward"], s=22, c=colour, marker=marker, label=f"{label} ({len(of)})"
            )
        axis.axvline(LIMITS.ap, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xlabel="simulated AP", ylabel="reward of the real trial (AP)", title=group)
        axis.legend(loc="upper left", fontsize=8)
    plot.tight_layout()
    plot.savefig(path, dpi=120)
    plt.close(plot)


def report(trials: pd.DataFrame, start: float) -> Iterator[str]:
    yield "# What the preflight saves, and what it loses\n"
    yield f"`python -m benchmarks.preflight`, {datetime.date.today()}\n"
    yield f"torch {torch.__version__}, {cpu_model()}, {torch.get_num_threads()} thread(s).\n"
    columns = {
        f"{group}: {', '.join(sorted(own['source'].unique()))}": summary(own, start)
        for group in (TUNED, HELD_OUT)
        if len(own := trials[trials["group"] == group])
    }
    for source, own in trials[trials["group"] == HELD_OUT].groupby("source"):
        columns[str(source)] = summary(own, start)
    yield head(["", *columns])
    for name in next(iter(columns.values())):
        yield row([name, *(column[name] for column in columns.values())])
    seconds, gradient = trials["seconds"].median(), trials["gradient_seconds"].median()
    yield f"\nCPU seconds a theta, median: {seconds:.2f}, gradient stage {gradient:.3f}."
    yield "In brackets: 95 % intervals.\n"
    yield "![Simulated AP and rewards, trial by trial](preflight.png)\n"
    yield "## Known losses\n"
    yield from known_rows()
