"""What a terminal shows of an experiment that is not running here: rounds, standings, next steps.

The tables fit a terminal of 80 columns.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.confirmation import confirmation
from search.display import plain
from search.history import History
from search.reward import column_name, reward_name
from search.standings import Standing, standings, verdict, winner


def print_result(
    history: History,
    console: Console | None = None,
    *,
    rounds: bool = False,
    running: bool = False,
) -> None:
    """Print how far an experiment has come or how it ended, and the commands that come next.

    Files that could not be read are named first. Before the final race has a result, or if
    `rounds` asks for it, the rounds so far stand before the standings. A search that is `running`
    needs no command to go on.
    """
    console = console or Console()
    table = standings(history)
    for reason in history.damaged:
        console.print(Text(f"left out {plain(reason)}", style="yellow"), soft_wrap=True)
    if (rounds or winner(table) is None) and (history.trials["phase"] == "search").any():
        console.print(render_rounds(history), Text())
    if table:
        console.print(render_table(table, column_name(history.config)), Text())
    said = verdict(table, reward_name(history.config))
    console.print(Text(plain(said), style="bold"))
    confirmed = confirmation(history.path)
    if confirmed is not None:
        line, agrees = confirmed
        console.print(Text(plain(line), style="dim" if agrees else "bold red"), soft_wrap=True)
    steps = _next_steps(history, resumable=not running and winner(table) is None)
    if steps:
        console.print(Text("\nNext:"))
    for step in steps:
        console.print(Text(f"  {step}"), soft_wrap=True)


def render_table(table: Sequence[Standing], score: str = "AP") -> Table:
    """The standings as a table for the terminal; a star marks the winner.

    `score` is what they are scored by (`reward.column_name`).
    Repeats that diverged or failed have a column only where there are any.
    """
    grid = plain_table("Third split (test), same budget for all")
    seen = {status for one in table for status in one.statuses}
    lost = [status for status in ("diverged", "failed") if status in seen]
    grid.add_column("", no_wrap=True)
    # It gives way where a terminal is too narrow: no number loses digits.
    grid.add_column("loss", overflow="fold")
    grid.add_column("role", no_wrap=True)
    for name in ("n", f"{score} test", "std", f"{score} val", *lost):
        grid.add_column(name, justify="right", no_wrap=True)
    best = winner(table)
    for one in table:
        role = "candidate" if one.phase == "final" else one.phase
        values = map(four_digits, (one.mean_test, one.std_test, one.mean_val))
        losses = (str(one.statuses.get(status, 0)) for status in lost)
        mark, style = ("*", "bold green") if one is best else ("", "")
        label = Text(plain(one.label))
        grid.add_row(mark, label, role, str(one.n), *values, *losses, style=style)
    return grid


def render_rounds(history: History) -> Table:
    """The search by round, and baseline and start: rewards, their mean, and the best of them."""
    grid = plain_table(f"Reward ({reward_name(history.config)} on val)")
    for name in ("round", "n", "mean", "best"):
        grid.add_column(name, justify="right", no_wrap=True)
    search = history.trials[history.trials["phase"] == "search"]
    rounds = search.groupby("round")["reward"].agg(["count", "mean", "max"])
    for number, count, mean, best in rounds.itertuples():
        known = (mean, best) if count else (None, None)
        grid.add_row(str(number), str(count), *map(four_digits, known))
    for phase in ("baseline", "start"):
        rewards = history.trials.loc[history.trials["phase"] == phase, "reward"].dropna()
        if len(rewards):
            values = map(four_digits, (rewards.mean(), rewards.max()))
            grid.add_row(phase, str(len(rewards)), *values, style="dim")
    return grid


def plain_table(title: str) -> Table:
    """An empty table that spends no column on frames."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def four_digits(value: float | None) -> str:
    """As all tables have a metric; "-" where there is none."""
    return "-" if value is None else f"{value:.4f}"


def _next_steps(history: History, resumable: bool) -> list[str]:
    folder = _short(history.path)
    steps = [f"paploss resume {folder}"] if resumable else []
    if (history.path / "best.yaml").exists():
        steps.append(f"paploss train {folder / 'best.yaml'}")
    if (history.path / "report.html").exists():
        steps.append(f"open {folder / 'report.html'}")
    if (history.path / "tensorboard").exists():
        steps.append(f"tensorboard --logdir {folder}")
    return steps


def _short(path: Path) -> Path:
    """The path as it is given or from where the user stands, whichever is shorter."""
    return min(path, Path(os.path.relpath(path)), key=lambda way: len(str(way)))
