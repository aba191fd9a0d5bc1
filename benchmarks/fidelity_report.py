"""What fidelities.py has measured, as a table and as a figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.halving import halving_table
from benchmarks.measure import head, row

Array = NDArray[np.float64]
FULL = ("full", "full again")
_RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One cheaper score of all thetas.

    Attributes:
        name: of the fidelity, or of the look part of the way.
        kind: "ceiling", "trial" or "look".
        cost: seconds of the CPU over those of a full trial.
        rank: Spearman's rank correlation with a full reward of another seed: of all thetas, of the
            best half, and the same two with the ends of their intervals.
        kept: part of the best quarter that is in the better half by this score.
    """

    name: str
    kind: str
    cost: float
    rank: tuple[float, float, float]
    best_half: tuple[float, float, float]
    kept: float


def report(chosen: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> list[Row]:
    """Print the table of all thetas that were trained at every fidelity; its rows."""
    by_theta: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        if line["reward"] is not None:
            by_theta.setdefault(line["source"], {})[line["fidelity"]] = line
    names = list(dict.fromkeys(line["fidelity"] for line in lines))
    thetas = [t for t in chosen if len(by_theta.get(t["source"], {})) == len(names)]
    if len(thetas) < 8:
        raise SystemExit(
            f"{len(thetas)} thetas were trained at every fidelity; expected 8 at least."
        )
    trials = {name: [by_theta[t["source"]][name] for t in thetas] for name in names}
    rewards = {name: np.array([t["reward"] for t in trials[name]]) for name in names}
    own = np.array([t["reward"] for t in thetas])
    best = own >= np.median(own)
    seconds = {name: float(np.median([t["cpu"] for t in trials[name]])) for name in names}
    full = np.mean([seconds[name] for name in FULL])
    a, b = (rewards[name] for name in FULL)

    rows = [_row("full, another seed", "ceiling", 1.0, a, [b], best)]
    for name in names:
        if name not in FULL:
            rows.append(_row(name, "trial", seconds[name] / full, rewards[name], [a, b], best))
    rows += _looks(trials, rewards, full, best)

    print(
        f"{len(thetas)} thetas; a full trial takes {full:.1f} s of a CPU. The standard deviation "
        f"of a full reward is {_spread(a, b):.4f} over seeds and {a.std(ddof=1):.4f} over thetas.\n"
    )
    print(head(("score", "cost", "rank correlation", "of the best half", "best quarter kept")))
    for each in rows:
        print(row((each.name, f"{each.cost:.2f}", _told(each.rank), _told(each.best_half),
                   f"{each.kept:.2f}")))  # fmt: skip
    cheap = {name: rewards[name] for name in names if name not in FULL}
    print(f"\n{halving_table(a, b, cheap, {each.name: each.cost for each in rows})}")
    return rows


def _looks(
    trials: dict[str, list[dict[str, Any]]], rewards: dict[str, Array], full: float, best: Any
) -> list[Row]:
    """Rows of the early scores of the first full trial, against the reward that it ended with.

    And against that of the second one: how much of the agreement is the seed's. What a look costs
    is the trial up to it and the look itself.
    """
    rows = []
    for index, look in enumerate(trials["full"][0]["early"]):
        early = [trial["early"][index] for trial in trials["full"]]
        scores = np.array([e["score"] for e in early])
        cost = look["at"] + float(np.median([e["cpu"] for e in early])) / full
        where = f"after {look['at']:.0%}, {look['images']} images"
        rows.append(_row(f"{where}: same trial", "look", cost, scores, [rewards["full"]], best))
        other = [rewards["full again"]]
        rows.append(_row(f"{where}: another seed", "look", cost, scores, other, best))
    return rows


def _row(name: str, kind: str, cost: float, score: Array, full: list[Array], best: Any) -> Row:
    half = [reward[best] for reward in full]
    kept = float(np.mean([_kept(score, reward) for reward in full]))
    return Row(
        name, kind, cost, _with_interval(score, full), _with_interval(score[best], half), kept
    )


def _with_interval(score: Array, full: list[Array]) -> tuple[float, float, float]:
    """(mean correlation with `full`, ends of its bootstrap interval over thetas)."""
    drawn = np.random.default_rng(0).integers(len(score), size=(_RESAMPLES, len(score)))
    means = np.mean([spearman(score[drawn], reward[drawn]) for reward in full], axis=0)
    defined = means[np.isfinite(means)]
    low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (np.nan, np.nan)
    return float(np.mean([spearman(score, reward) for reward in full])), float(low), float(high)


def spearman(a: Array, b: Array) -> Any:
    """Spearman's rank correlation along the last axis, ties by mean rank; NaN of a constant."""
    middle = (a.shape[-1] + 1) / 2
    x, y = (rankdata(values, axis=-1) - middle for values in (a, b))
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def _kept(score: Array, reward: Array) -> float:
    """Of the best quarter by `reward`, the part in the better half by `score`; ties count half."""
    quarter = np.argsort(-reward, kind="stable")[: max(1, len(reward) // 4)]
    middle = np.median(score)
    return float(np.mean((score[quarter] > middle) + 0.5 * (score[quarter] == middle)))


def _spread(a: Array, b: Array) -> float:
    """Standard deviation over seeds, from two rewards of each theta."""
    return float(np.sqrt(np.mean((a - b) ** 2) / 2))


def _told(rank: tuple[float, float, float]) -> str:
    return f"{rank[0]:.2f} ({rank[1]:.2f} to {rank[2]:.2f})"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Rank correlation over cost: all thetas, and the best half."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels: list[tuple[str, Callable[[Row], tuple[float, float, float]]]] = [
        ("all thetas", lambda r: r.rank),
        ("best half", lambda r: r.best_half),
    ]
    colours = {"ceiling": "black", "trial": "tab:blue", "look": "tab:orange"}
    shown = [r for r in rows if not r.name.endswith("same trial")]
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharex=True, sharey=True)
    for axis, (title, value) in zip(axes, panels, strict=True):
        for number, each in enumerate(shown):
            middle, low, high = value(each)
            label = f"{number}  {each.name.removesuffix(': another seed')}"
            axis.errorbar(
                each.cost, middle, [[middle - low], [high - middle]], fmt="o", label=label,
                color=colours[each.kind], elinewidth=0.5, markersize=4,
            )  # fmt: skip
            axis.annotate(
                str(number), (each.cost, middle), fontsize=8, xytext=(4, 3),
                textcoords="offset points",
            )  # fmt: skip
        axis.axhline(value(rows[0])[0], color="black", linewidth=0.6, linestyle="--")
        axis.set(title=title, xlabel="cost, in full trials", xlim=(0, 1.1))
    axes[0].set_ylabel("rank correlation with a full trial")
    # The lines of the marks say nothing that their numbers do not.
    fig.legend(*axes[1].get_legend_handles_labels(), loc="center right", fontsize=8, frameon=False)
    fig.tight_layout(rect=(0, 0, 0.8, 1))
    fig.savefig(path, dpi=130)
    plt.close(fig)
