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
from search.display import clock_text, plain
from search.formulas import best_formulas
from search.history import History
from search.noise import spread
from search.rejections import rejections
from search.reward import column_name, reward_name
from search.standings import Standing, race_of, standings, verdict, winner


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
    for _, line in notes_of(history):
        console.print(Text(plain(line), style="dim"), soft_wrap=True)
    said = verdict(table, reward_name(history.config))
    console.print(Text(plain(said), style="bold"))
    formulas, whose = best_formulas(history)
    for branch, formula in formulas.items():
        console.print(Text(plain(f"{branch} of {whose}: {formula}")), soft_wrap=True)
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
    Repeats that diverged or failed have a column only where there are any. "best" is how likely a
    candidate is the best of them, where that is known and there is room.
    """
    grid = plain_table("Third split (test), same budget for all")
    seen = {status for one in table for status in one.statuses}
    lost = [status for status in ("diverged", "failed") if status in seen]
    grid.add_column("", no_wrap=True)
    # It gives way where a terminal is too narrow: no number loses digits.
    grid.add_column("loss", overflow="fold")
    grid.add_column("role", no_wrap=True)
    # In 80 columns there is room for one or the other; the verdict tells the winner's in any case.
    known = any(one.probability is not None for one in table)
    chances = ["best"] if known and len(lost) < 2 else []
    for name in ("n", f"{score} test", "std", f"{score} val", *chances, *lost):
        grid.add_column(name, justify="right", no_wrap=True)
    best = winner(table)
    for one in table:
        role = role_of(one)
        values = [four_digits(value) for value in (one.mean_test, one.std_test, one.mean_val)]
        values += [percent(one.probability) for _ in chances]
        losses = (str(one.statuses.get(status, 0)) for status in lost)
        mark, style = ("*", "bold green") if one is best else ("", "")
        label = Text(plain(one.label))
        grid.add_row(mark, label, role, str(one.n), *values, *losses, style=style)
    return grid


def role_of(one: Standing) -> str:
    """What it is in the final race, and whether it has left it."""
    if one.phase != "final":
        return one.phase
    return "candidate" if one.dropped is None else f"out after {one.dropped}"


def percent(probability: float | None) -> str:
    """Whole percents; nothing is certain."""
    if probability is None:
        return "-"
    return ">99%" if probability > 0.99 else "<1%" if probability < 0.01 else f"{probability:.0%}"


def notes_of(history: History) -> list[tuple[str, str]]:
    """What saved trials, and what rewards are worth: (title, line), as far as there is any."""
    lines: list[tuple[str, str]] = []
    screened = rejections(history)
    if screened is not None:
        saved = screened.saved_seconds if screened.rejected else None
        time = f"; about {clock_text(saved)} of trials saved" if saved else ""
        lines.append(("samples", f"{screened.line()}{time}"))
    search = [record for record in history.records if record["phase"] == "search"]
    stopped = sum(record["status"] == "stopped" for record in search)
    if stopped:
        early = f"{stopped} of {len(search)} samples stopped part of the way"
        lines.append(("early stop", f"{early}; their rewards are estimates"))
    rung = sum(record["phase"] == "rung" for record in history.records)
    if rung:
        lines.append(("rungs", f"{rung} cheaper trials chose the {len(search)} that were whole"))
    race = race_of(history)
    if race is not None and (race.dropped or race.saved):
        left = f"{len(race.dropped)} of {len(race.dropped) + len(race.left)} candidates left early"
        spared = f"; {race.saved} trials of the final race were not needed" if race.saved else ""
        lines.append(("race", f"{left}{spared}"))
    luck = spread(history.records)
    if luck is not None:
        said = f"one loss trained with other seeds spreads by {luck.sd:.4f}"
        lines.append(("noise", f"{said} (standard deviation; {luck.n} trials)"))
    return lines


def render_rounds(history: History) -> Table:
    """The search by round, and baseline and start: rewards, their mean, and the best of them.

    What was rejected, and what was stopped early, has a column only where there is any.
    """
    grid = plain_table(f"Reward ({reward_name(history.config)} on val)")
    search = history.trials[history.trials["phase"] == "search"]
    rounds = search.groupby("round")["reward"].agg(["count", "mean", "max"])
    stopped = search[search["status"] == "stopped"].groupby("round").size()
    rejected = {own.round: f"{len(own.rejected)} of {own.drawn}" for own in history.samples}
    rejected = rejected if any(own.rejected for own in history.samples) else {}
    more = [("stopped", stopped)] if len(stopped) else []
    more += [("rejected", rejected)] if rejected else []
    for name in ("round", "n", "mean", "best", *(title for title, _ in more)):
        grid.add_column(name, justify="right", no_wrap=True)
    for number, count, mean, best in rounds.itertuples():
        known = (mean, best) if count else (None, None)
        beside = [str(column.get(number, 0)) for _, column in more]
        grid.add_row(str(number), str(count), *map(four_digits, known), *beside)
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
