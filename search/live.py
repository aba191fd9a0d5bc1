"""A search as its folder shows it to whoever watches from another shell or machine.

Only files are read: the configuration, the journal, the status and the events. The panel and the
lines are those of the running search's own display.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from paploss.strict import parse
from search.config import SearchConfig
from search.display import (
    ENDS_WELL,
    clock_text,
    finished_line,
    mean_text,
    outcome_of,
    plain,
    render_panel,
    round_line,
    time_left,
    timed,
)
from search.history import History, load_history
from search.old_config import as_it_was
from search.progress import NOTES, Progress, key_of, place
from search.result import notes_of, plain_table
from search.standings import standings, winner
from search.status import Event, Status, read_events, read_status


@dataclass(frozen=True)
class View:
    """An experiment at one moment.

    Attributes:
        now: when it was looked at, in seconds since 1970.
        status: what the search says of itself; None where it has not, or its file is damaged.
        events: what the user was told, by time.
    """

    now: float
    history: History
    progress: Progress
    status: Status | None
    events: tuple[Event, ...]

    @property
    def state(self) -> str:
        """That of the status, or "lost" without a sign of life, or "unknown"."""
        if self.status is None:
            return "finished" if winner(standings(self.history)) else "unknown"
        return "lost" if self.status.is_lost(self.now) else self.status.state

    @property
    def notes(self) -> list[Event]:
        """The events and the trials that did not end well, by time."""
        bad = [
            Event(_end(record), f"{place(record)}: {outcome_of(record)}")
            for record in self.history.records
            if record["status"] not in ENDS_WELL
        ]
        return sorted([*bad, *self.events], key=lambda event: event.time)

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "interrupted", "stopped")


def look(experiment: Path) -> View:
    """Read an experiment as it is now.

    Raises:
        BadExperiment, BadConfig: it is no experiment, or its configuration cannot be read.
    """
    now = time.time()
    history = load_history(experiment)
    status, events = read_status(experiment), read_events(experiment)
    config = as_it_was(history.config)
    known = {name: config[name] for name in SearchConfig.model_fields & config.keys()}
    settings = parse(SearchConfig, known, str(experiment / "config.yaml"))
    progress = Progress.of(settings)
    for record in history.records:
        progress.take(record)
    progress.end_race(settings.final)
    view = View(now, history, progress, status, events)
    if status is not None:
        progress.begun, progress.slots = status.started, status.slots
        for trial in status.running if view.state == "running" else ():
            # A trial's record is on storage before the status says that it has ended.
            if key_of(key := trial.model_dump()) not in progress.records:
                progress.start(key, trial.started)
    progress.notes.extend(event.text for event in view.notes[-NOTES:])
    return view


def _end(record: Mapping[str, Any]) -> float:
    return float(record["finished"] or 0.0)


# --- one experiment -------------------------------------------------------------------------------


def state_text(view: View) -> Text:
    """Whether it runs, where, and how old the last sign of life is: one line."""
    status, folder = view.status, view.history.path
    again = f"paploss resume {folder}"
    if status is None:
        finished = view.state == "finished"
        said = "finished" if finished else f"nothing says that it runs; start it with: {again}"
        return Text(said, style="green" if finished else "yellow")
    ago = age_text(status.silent_seconds(view.now))
    where = f"on {plain(status.host)}, process {status.pid}"
    if view.state == "running":
        return Text(f"running {where}; last sign of life {ago}", style="green")
    if view.state == "lost":
        gone = f"no sign of life since {age_text(status.silent_seconds(view.now), '')}"
        return Text(f"{gone}: it ran {where}. If it is gone, go on with: {again}", style="bold red")
    if view.state == "finished":
        return Text(f"finished {ago}", style="green")
    problem = f": {plain(status.problem).rstrip('.')}" if status.problem else ""
    style = "bold red" if view.state == "stopped" else "yellow"
    return Text(f"{view.state} {ago}{problem}; go on with: {again}", style=style)


def panel_of(view: View) -> Panel:
    """The panel that the running search shows, and above it whether it runs."""
    status, facts = view.status, []
    if status is not None and view.state == "running":
        fitting = f"{status.slots} side by side, {status.pending} to come"
        facts.append(("slots", fitting))
    if status is not None and status.nodes and view.state == "running":
        alive = [node for node in status.nodes if node.alive]
        cpus, gpus = sum(node.cpus for node in alive), sum(node.gpus for node in alive)
        machines = f"{len(alive)} of {len(status.nodes)} alive"
        facts.append(("machines", f"{machines}, {cpus:g} CPUs, {gpus:g} GPUs"))
    facts += [(title, line) for title, line in notes_of(view.history) if title != "noise"]
    if view.history.damaged:
        facts.append(("left out", "; ".join(map(plain, view.history.damaged))))
    return render_panel(
        view.progress,
        view.now,
        state=state_text(view),
        facts=facts,
        elapsed=view.state == "running",
    )


def news(before: View, after: View) -> list[str]:
    """What has happened between two looks, line by line, as the log of the search has it.

    Each line begins with its time since the session began.
    """
    progress, known = after.progress, before.progress.records
    lines: list[tuple[float, str]] = []
    fresh = [record for record in after.history.records if key_of(record) not in known]
    for done, record in enumerate(sorted(fresh, key=_end), len(known) + 1):
        lines.append((_end(record), finished_line(record, done, progress.total)))
    for number in sorted({*progress.whole_rounds()} - {*before.progress.whole_rounds()}):
        of_round = (r for key, r in progress.records.items() if key[:2] == ("search", number))
        left = time_left(progress, after.now)
        lines.append((max(map(_end, of_round)), f"{round_line(progress, number)}; {left}"))
    lines += [event for event in after.events if event not in before.events]
    if after.state != before.state:
        lines.append((after.now, state_text(after).plain))
    # Sorting keeps the order of what has the same time: a round ends after its last trial.
    lines.sort(key=lambda line: line[0])
    return [timed(moment - progress.begun, plain(text)) for moment, text in lines]


# --- several --------------------------------------------------------------------------------------


def overview(views: Sequence[View]) -> Table:
    """One row an experiment, in 80 columns."""
    grid = plain_table("")
    grid.title = None
    grid.add_column("experiment", overflow="fold")
    grid.add_column("state", no_wrap=True)
    for name in ("trials", "round", "best", "baseline", "start", "left"):
        grid.add_column(name, justify="right", no_wrap=True)
    for view in views:
        progress, best = view.progress, view.progress.best()
        left = progress.left_seconds(view.now) if view.state == "running" else None
        grid.add_row(
            Text(plain(progress.name)),
            view.state,
            f"{len(progress.records)}/{progress.total}",
            f"{len(progress.whole_rounds())}/{progress.rounds}",
            "-" if best is None else f"{best['reward']:.4f}",
            mean_text(progress.rewards("baseline")),
            mean_text(progress.rewards("start")),
            "-" if left is None else clock_text(left),
        )
    return grid


def age_text(seconds: float, ago: str = " ago") -> str:
    """A time span in its largest unit: 5 s, 3 min, 2 h, 4 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}{ago}"
    return f"{int(seconds)} s{ago}"
