"""An experiment as one picture, and the parts of it that the report shows too."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from search.curves import COLOURS, STYLE, Points, curves_by_head, draw_curves
from search.formulas import best_formulas
from search.history import History, load_history
from search.reward import reward_name
from search.standings import Standing, standings, winner

_LEGEND = 24
"""The most characters of a label that a legend on a narrow screen has room for."""


def figure_png(experiment: Path, path: Path) -> Path:
    """The headline as a picture: the rewards by round, and the curves of the winner beside them.

    Curves that are by head are below, one row a head.

    Raises:
        BadExperiment: the directory holds no experiment.
    """
    history = load_history(experiment)
    curves, title = best_curves(history, standings(history))
    with matplotlib.rc_context(STYLE):
        heads = curves_by_head(curves)
        if any(heads):
            heights = (4.2, 0.4 + 2.7 * len(heads))
            figure = Figure(figsize=(11, sum(heights)), facecolor="white")
            grid = figure.add_gridspec(2, 1, height_ratios=heights)
        else:
            figure = Figure(figsize=(11, 4.2), facecolor="white")
            grid = figure.add_gridspec(1, 2, width_ratios=(6, 5))
        first, second = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        draw_rewards(first, history)
        if curves:
            second.suptitle(f"Curves of {title}, start dashed", fontsize=10)
            draw_curves(second, curves, start_curves(history))
        else:
            _write_formulas(second, *best_formulas(history))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white", format="png")
    return path


def draw_rewards(figure: Any, history: History) -> None:
    """Every search trial as a dot, the mean of each round, baseline and start as bands."""
    axes = figure.add_subplot()
    trials = history.trials
    search = trials[(trials["phase"] == "search") & trials["reward"].notna()]
    # The slots of a round stand side by side, so that equal rewards do not hide each other.
    x = search["round"] + 0.4 * ((search["slot"] + 0.5) / (search["slot"].max() + 1) - 0.5)
    diverged, stopped = search["status"] == "diverged", search["status"] == "stopped"
    whole = ~(diverged | stopped)
    axes.plot(x[whole], search["reward"][whole], "o", color=COLOURS["trial"][0],
              alpha=0.5, markersize=4.5, markeredgewidth=0, label="a trial")  # fmt: skip
    if stopped.any():
        axes.plot(x[stopped], search["reward"][stopped], "o", color=COLOURS["trial"][0],
                  markersize=4.5, fillstyle="none", label="stopped early")  # fmt: skip
    if diverged.any():
        axes.plot(x[diverged], search["reward"][diverged], "x", color=COLOURS["bad"][0],
                  markersize=6, clip_on=False, label="diverged")  # fmt: skip
    rounds = search.groupby("round")["reward"]
    mean, best = rounds.mean(), rounds.max().cummax()
    axes.plot(mean.index, mean, "-", color=COLOURS["trial"][0], linewidth=2, label="mean of round")
    axes.step(best.index, best, where="mid", color=COLOURS["best"][0], label="best so far")
    for phase in ("baseline", "start"):
        rewards = trials.loc[trials["phase"] == phase, "reward"].dropna()
        if len(rewards):
            level, spread = rewards.mean(), rewards.std(ddof=1) if len(rewards) > 1 else 0.0
            colour = COLOURS[phase][0]
            label = str(trials.loc[trials["phase"] == phase, "label"].iloc[0])
            label = label if len(label) <= _LEGEND else phase  # on a page, the tables have the rest
            axes.axhline(level, color=colour, linestyle="--", linewidth=1.5, label=label)
            axes.axhspan(level - spread, level + spread, color=colour, alpha=0.13, linewidth=0)
    axes.set(xlabel="round", ylabel=f"reward ({reward_name(history.config)} on val)")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.tick_params(length=0)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    figure.legend(loc="outside upper left", ncols=3, fontsize=9, columnspacing=1.4)


def _write_formulas(figure: Any, formulas: Mapping[str, str], whose: str) -> None:
    """The formulas of a search without curves, folded to the width of half a picture."""
    if not formulas:
        return
    figure.suptitle(f"Formulas of {whose}", fontsize=10)
    parts = [f"{name}:\n{textwrap.fill(formula, 56)}" for name, formula in formulas.items()]
    figure.text(0.02, 0.5, "\n\n".join(parts), va="center", family="monospace", fontsize=8.5)


def best_curves(history: History, table: Sequence[Standing]) -> tuple[dict[str, Points], str]:
    """The winner's curves by name, or those of the best trial so far, and whose they are."""
    best = winner(table)
    if best is not None:
        return dict(best.control_points or {}), f"the winner, {best.label}"
    done = [r for r in history.records if r["phase"] == "search" and r["reward"] is not None]
    top = max(done, key=lambda r: r["reward"], default=None)
    if top is None:
        return {}, ""
    return dict(top["control_points"] or {}), f"the best so far, {top['label']}"


def start_curves(history: History) -> dict[str, Points]:
    """The curves that the search started from; empty where it has none."""
    starts = (r["control_points"] for r in history.records if r["phase"] == "start")
    return next((dict(curves) for curves in starts if curves), {})
