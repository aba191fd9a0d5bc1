"""What a search shows: one live panel on a terminal, plain lines in a file or a pipe.

The same panel and the same lines serve the running search (`Display`) and whoever watches its
folder (`search.watch`).
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.progress import NOTES, Progress, place

RECENT = 8  # how many rounds' means the panel shows
ENDS_WELL = ("ok", "stopped")
"""How a trial ends that nobody has to look after; one that is stopped early has saved time."""


class Display:
    """Shows a running search as it is told events.

    Args:
        progress: the search; the events are taken into it.
        console: where to show it; the panel needs one that is a terminal.
        clock: seconds since 1970; replaced in tests.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.progress = progress
        self.console = console or Console()
        self.clock = clock
        self.live: Live | None = None
        if is_terminal(self.console):
            self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=2)
            self.live.start()

    def replay(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take in what a resumed search had finished before, without a line for each."""
        for record in records:
            self.progress.take(record)

    def started(self, key: Mapping[str, Any]) -> None:
        """A trial has started: a mapping with phase, round, slot and repeat."""
        self.progress.start(key, self.clock())

    def finished(self, record: Mapping[str, Any]) -> None:
        """A trial has ended, in whatever way: its journal record."""
        self.progress.take(record)
        self._line(finished_line(record, len(self.progress.records), self.progress.total))
        if record["status"] not in ENDS_WELL:
            self.progress.notes.append(f"{place(record)}: {outcome_of(record)}")

    def round_done(self, round: int) -> None:
        """The last trial of a round has ended and its rewards were learnt from."""
        left = time_left(self.progress, self.clock())
        self._line(f"{round_line(self.progress, round)}; {left}")

    def note(self, text: str) -> None:
        """Something worth a line: a retry, a lost machine, an interrupt."""
        self.progress.notes.append(text)
        self._line(plain(text))

    def stop(self) -> None:
        """Leave the panel as it stands and give the terminal back; harmless when called twice."""
        if self.live is not None:
            self.progress.running.clear()
            self.live.stop()
            self.live = None

    def render(self) -> Panel:
        """The panel, from the state as it is now."""
        return render_panel(self.progress, self.clock())

    def _line(self, text: str) -> None:
        if self.live is None:
            print_line(self.console, timed(self.clock() - self.progress.begun, text))


def render_panel(
    progress: Progress,
    now: float,
    *,
    state: Text | None = None,
    facts: Sequence[tuple[str, str]] = (),
    elapsed: bool = True,
) -> Panel:
    """A search at a glance.

    Args:
        now: seconds since 1970.
        state: a first line that says whether it runs; for whoever watches from elsewhere.
        facts: more rows, each a title and a text.
        elapsed: whether time goes on, so that what has passed and what is left can be told.
    """
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column()
    for title, value in (*_rows(progress, now), *((title, Text(text)) for title, text in facts)):
        rows.add_row(title, value)
    for title, note in zip(["notes", *[""] * NOTES], list(progress.notes), strict=False):
        rows.add_row(title, Text(plain(note), overflow="ellipsis", no_wrap=True))
    head = [] if state is None else [state, Text()]
    times = f" {clock_text(now - progress.begun)} elapsed, {time_left(progress, now)} "
    return Panel(
        Group(*head, _bar(progress), Text(), rows),
        title=Text(f" {plain(progress.name)} ", style="bold"),
        subtitle=Text(times) if elapsed else None,
        border_style="blue",
        padding=(1, 2),
    )


def _rows(progress: Progress, now: float) -> list[tuple[str, Text]]:
    rows = [
        ("best so far", Text(_best(progress), style="bold green")),
        ("baseline", Text(_level(progress, "baseline"))),
        ("start", Text(_level(progress, "start"))),
    ]
    if progress.phase in ("rung", "search"):
        current = progress.rewards(progress.phase, progress.round)
        title = "this rung" if progress.phase == "rung" else "this round"
        rows.append((title, Text(f"{mean_text(current)}  mean of {len(current)}")))
    recent = [mean_text(progress.rewards("search", n)) for n in progress.whole_rounds()[-RECENT:]]
    rows.append(("last rounds", Text("  ".join(recent) or "-")))
    rows.append(("running", Text(", ".join(running_texts(progress, now)) or "-")))
    counts = progress.statuses()
    ends = [Text(f"{counts['ok']} ok"), Text(f"{counts['diverged']} diverged")]
    ends += [Text(f"{counts['stopped']} stopped early")] if counts["stopped"] else []
    ends.append(Text(f"{counts['failed']} failed", style="red" if counts["failed"] else ""))
    rows.append(("trials", Text(", ").join(ends)))
    return rows


def _bar(progress: Progress) -> Table:
    number = progress.round
    done_rounds = f"({len(progress.whole_rounds())} of {progress.rounds} rounds done)"
    titles = {
        "rung": f"rung of round {number}, {progress.finished_in(number, 'rung')} of "
        f"{progress.rung} slots {done_rounds}",
        "search": f"round {number}, {progress.finished_in(number)} of {progress.samples} slots "
        f"{done_rounds}",
        "final": "final race",
    }
    done = len(progress.records)
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    bar = ProgressBar(total=max(1, progress.total), completed=done, complete_style="blue")
    title = Text(titles.get(progress.phase, "baseline and start"), style="bold")
    grid.add_row(title, bar, f"{done}/{progress.total} trials")
    return grid


# --- lines and numbers, the same wherever a search is shown -----------------------------------


def finished_line(record: Mapping[str, Any], done: int, total: int) -> str:
    """How a trial has ended, as the `done`-th of all."""
    how = f"{outcome_of(record)}, {record['seconds']:.1f} s"
    return f"{place(record)}: {how}, {done}/{total} trials"


def outcome_of(record: Mapping[str, Any]) -> str:
    """Status, reward and error of a record, as far as it has them."""
    outcome = str(record["status"])
    if record["reward"] is not None:
        outcome += f", reward {record['reward']:.4f}"
    return f"{outcome} ({plain(record['error'])})" if record["error"] else outcome


def round_line(progress: Progress, round: int) -> str:
    """What a round has given, beside baseline and start."""
    rewards = progress.rewards("search", round)
    parts = [f"mean {mean_text(rewards)}"]
    parts += [f"best {max(rewards):.4f}"] if rewards else []
    parts.append(f"best so far {_best(progress)}")
    parts += [
        f"{phase} {mean_text(progress.rewards(phase))}"
        for phase in ("baseline", "start")
        if progress.rewards(phase)
    ]
    return f"round {round} done: {', '.join(parts)}"


def running_texts(progress: Progress, now: float) -> list[str]:
    """The trials under way, each with the time since it began."""
    return [
        f"{place(dict(zip(('phase', 'round', 'slot', 'repeat'), key, strict=True)))} "
        f"{clock_text(now - begun)}"
        for key, begun in list(progress.running.items())
    ]


def time_left(progress: Progress, now: float) -> str:
    seconds = progress.left_seconds(now)
    return "unknown time left" if seconds is None else f"about {clock_text(seconds)} left"


def _level(progress: Progress, phase: str) -> str:
    rewards, name = progress.rewards(phase), plain(progress.label(phase))
    return f"{mean_text(rewards)}  mean of {len(rewards)}  {name}" if rewards else "-"


def _best(progress: Progress) -> str:
    best = progress.best()
    return "-" if best is None else f"{best['reward']:.4f} ({place(best)})"


def mean_text(rewards: Sequence[float]) -> str:
    """Their mean; "-" where there are none."""
    return f"{statistics.fmean(rewards):.4f}" if rewards else "-"


def clock_text(seconds: float) -> str:
    """Minutes and seconds, and hours before them where there are any."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def plain(text: str) -> str:
    """One line without control characters, whatever a trial put into its error."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def is_terminal(console: Console) -> bool:
    """Whether a live panel can be shown.

    A pipe or a log file must never see a control character, not even where FORCE_COLOR makes
    rich take it for a terminal; nor does TERM=dumb want any.
    """
    return console.is_interactive and console.file.isatty()


def timed(seconds: float, text: str) -> str:
    """A line with the time since the beginning before it."""
    return f"[{clock_text(seconds)}] {text}"


def print_line(console: Console, line: str) -> None:
    """As it is: nothing in it is markup, and a long one is not folded."""
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
