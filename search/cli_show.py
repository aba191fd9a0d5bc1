"""`paploss show`: how experiments stand, from any shell or machine that sees their folders."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from search.exit_codes import Exit

if TYPE_CHECKING:
    from search.live import View

EVENTS = 5  # how many of the last events are shown
_SECONDS = 1.0  # between two looks, at least
_SHARE = 4  # and so many times what a look takes: reading stays a small part of the time
_CODES = {"finished": Exit.OK, "stopped": Exit.STOPPED, "interrupted": Exit.INTERRUPTED}


def show(
    experiments: Annotated[
        list[Path], typer.Argument(metavar="EXPERIMENT", help="Folders, experiments/<name>.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the search ends, or Ctrl-C.")
    ] = False,
) -> None:
    """Show how experiments stand: state, what runs, rewards by round, standings.

    Only their folders are read, so it works from any machine that sees them. Several experiments
    get a row each.

    With --follow, the exit code is the search's: 0 finished, 3 stopped, 130 interrupted.
    """
    from search.live import look

    console = Console()
    paths = list(dict.fromkeys(experiments))
    views = [look(path) for path in paths]
    if not follow:
        _print(views, console)
        return
    try:
        views = _watch(paths, views, console)
    except KeyboardInterrupt:
        console.print("left; nothing was stopped.")
        return
    _print(views, console)
    codes = [_CODES[view.state] for view in views]
    raise typer.Exit(max(codes))


def _watch(paths: Sequence[Path], views: "list[View]", console: Console) -> "list[View]":
    """Show what changes until all have ended; the views of then."""
    from search.display import is_terminal, print_line
    from search.live import look, news

    def looks() -> "list[View]":
        begun = time.monotonic()
        found = [look(path) for path in paths]
        time.sleep(max(_SECONDS, _SHARE * (time.monotonic() - begun)))
        return found

    if is_terminal(console):
        with Live(_screen(views), console=console, auto_refresh=False, transient=True) as live:
            while not all(view.ended for view in views):
                views = looks()
                live.update(_screen(views), refresh=True)
        return views
    for view in views:
        _print_head(view, console)
    while not all(view.ended for view in views):
        before, views = views, looks()
        for old, new in zip(before, views, strict=True):
            name = f"{new.progress.name} " if len(paths) > 1 else ""
            for line in news(old, new):
                print_line(console, f"{name}{line}")
        console.file.flush()
    return views


def _screen(views: "Sequence[View]") -> RenderableType:
    from search.live import overview, panel_of

    return panel_of(views[0]) if len(views) == 1 else overview(views)


def _print(views: "Sequence[View]", console: Console) -> None:
    from search.live import overview

    if len(views) == 1:
        _print_one(views[0], console)
        return
    console.print(overview(views))
    for view in views:
        for reason in view.history.damaged:
            said = f"{view.history.path}: left out {reason}"
            console.print(Text(_plain(said), style="yellow"), soft_wrap=True)


def _print_one(view: "View", console: Console) -> None:
    """State, what runs, and what has been found."""
    from search.history import shared_fingerprints
    from search.live import age_text, panel_of
    from search.result import print_result

    if view.state in ("running", "lost") or not view.history.records:
        console.print(panel_of(view))
    else:
        _print_head(view, console)
        for event in view.notes[-EVENTS:]:
            ago = age_text(max(0.0, view.now - event.time))
            console.print(Text(f"{ago}: {_plain(event.text)}", style="dim"), soft_wrap=True)
    for fingerprint, labels in shared_fingerprints(view.history).items():
        said = (
            f"WARNING: {', '.join(labels)} have different thetas and trained alike "
            f"(fingerprint {fingerprint}): part of theta did not reach the loss."
        )
        console.print(Text(_plain(said), style="bold red"))
    running = view.state == "running"
    print_result(view.history, console, rounds=True, running=running)


def _print_head(view: "View", console: Console) -> None:
    from search.live import state_text

    done, total = len(view.history.records), view.progress.total
    head = f"{_plain(view.progress.name)}: {done} finished trials of {total}"
    console.print(Text(head), soft_wrap=True)
    console.print(state_text(view), soft_wrap=True)


def _plain(text: str) -> str:
    from search.display import plain

    return plain(text)
