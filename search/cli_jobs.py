"""`paploss jobs`: what was submitted to a Ray cluster: list, follow, stop, fetch."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from search.exit_codes import Exit

if TYPE_CHECKING:
    from cluster.server import JobsServer

jobs_app = typer.Typer(
    help="Searches that were submitted to a cluster: list, follow, stop, fetch.",
    invoke_without_command=True,
)

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Ray's dashboard, http://HEAD:8265; else RAY_API_SERVER_ADDRESS.",
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `paploss jobs` lists it.")]


@jobs_app.callback()
def jobs(context: typer.Context, address: Address = None) -> None:
    """List the searches that were submitted to a cluster; see the commands for more."""
    context.obj = address
    if context.invoked_subcommand is None:
        list_jobs(context, address)


@jobs_app.command("list")
def list_jobs(context: typer.Context, address: Address = None) -> None:
    """List the jobs of a cluster, oldest first."""
    from search.display import plain
    from search.result import plain_table

    server = _connect(context, address)
    table = plain_table(f"Jobs of {server.url}")
    for column in ("job", "status", "started", "took"):
        table.add_column(column, no_wrap=True)
    table.add_column("experiment, or command", overflow="fold")
    shown = 0
    for job in server.jobs():
        metadata = job.metadata or {}
        if "fetches" in metadata:  # of `paploss jobs fetch`
            continue
        shown += 1
        words = (
            job.submission_id or "", job.status.lower(), *_times(job),
            metadata.get("experiment", job.entrypoint),
        )  # fmt: skip
        table.add_row(*(Text(plain(word)) for word in words))
    if not shown:
        print(f"no jobs on {server.url}")
        return
    console = Console()
    if not console.file.isatty():  # a pipe gets whole lines
        console = Console(width=1000)
    console.print(table)


@jobs_app.command()
def logs(
    context: typer.Context,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    address: Address = None,
) -> None:
    """Show what a job has printed."""
    from cluster.follow import problem_of

    server = _connect(context, address)
    if follow:
        follow_job(server, job, address or context.obj)
        return
    log = server.logs(job)
    sys.stdout.write(log)
    details = server.job(job)
    if not log and details.status == "FAILED":
        say(f"{job} has failed before it printed anything: {problem_of(details, log)}")


@jobs_app.command()
def stop(context: typer.Context, job: Job, address: Address = None) -> None:
    """End a job cleanly; its search goes on when it is submitted again."""
    from cluster.follow import has_ended
    from cluster.follow import stop as end

    server = _connect(context, address)
    before = server.job(job)
    if has_ended(before):
        print(f"{job} has ended before: {before.status.lower()}")
        return
    details = end(server, job)
    print(
        f"{job} has ended: {details.status.lower()}. What was finished is kept; submit the search "
        "again to go on."
    )


@jobs_app.command()
def fetch(
    context: typer.Context,
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id, or an experiment's folder there.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; the experiment's name here.")
    ] = None,
    address: Address = None,
) -> None:
    """Bring best.yaml, the report, the history and the journal of a search to this machine."""
    from cluster.errors import NoCluster
    from cluster.fetch import experiment_of
    from cluster.fetch import fetch as bring

    try:
        server = _connect(context, address)
    except NoCluster as error:
        raise NoCluster(
            f"{error} Without the cluster, copy the experiment's folder from its storage; "
            "`paploss show FOLDER` reads it."
        ) from error
    experiment = experiment_of(server, job)
    fetched = bring(server, experiment, out or Path(Path(experiment).name))
    print(f"fetched {fetched.files} files of {fetched.experiment} into {fetched.folder}")
    if not fetched.finished:
        print("There is no best.yaml yet: the search has not ended. Fetch again later.")
        return
    print(f"\nNext:\n  paploss train {fetched.folder / 'best.yaml'}")
    print(f"  open {fetched.folder / 'report.html'}\n  paploss show {fetched.folder}")


def _connect(context: typer.Context, address: str | None) -> "JobsServer":
    from cluster.server import connect

    return connect(address or context.obj, warn)


def follow_job(server: "JobsServer", job: str, address: str | None) -> None:
    """Show a job's log to its end, and end as the job has."""
    from cluster.follow import follow, problem_of

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        details = follow(server, job, write)
    except KeyboardInterrupt:
        say(f"\nNo longer following; {job} runs on.")
        say_how_to_go_on(job, address)
        raise typer.Exit(Exit.INTERRUPTED) from None
    status = str(details.status.lower())
    if status == "succeeded":
        say(f"\n{job} has succeeded. Bring its results here:\n  {_command('fetch', job, address)}")
        return
    if status == "stopped":
        say(f"\n{job} was stopped. What was finished is kept; submit the search again to go on.")
        raise typer.Exit(Exit.INTERRUPTED)
    say(f"\n{job} has failed: {problem_of(details, server.logs(job))}")
    known = (Exit.BAD_INPUT, Exit.STOPPED, Exit.INTERRUPTED)
    code = details.driver_exit_code
    raise typer.Exit(code if code in known else Exit.STOPPED)


def say_how_to_go_on(job: str, address: str | None) -> None:
    say(f"Follow it:    {_command('logs', job, address)} --follow")
    say(f"Stop it:      {_command('stop', job, address)}")
    say(f"Get results:  {_command('fetch', job, address)}")


def _command(verb: str, job: str, address: str | None) -> str:
    return f"paploss jobs {verb} {job}" + (f" --address {address}" if address else "")


def _times(job: Any) -> tuple[str, str]:
    """When a job has started, in local time, and how long it has run."""
    if not job.start_time:
        return "-", "-"
    begin = job.start_time / 1000
    seconds = int((job.end_time / 1000 if job.end_time else time.time()) - begin)
    started = time.strftime("%m-%d %H:%M", time.localtime(begin))
    return started, f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def say(line: str) -> None:
    print(line, file=sys.stderr)
