"""`paploss submit`: a search on a Ray cluster elsewhere, over HTTP."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli_jobs import Address, follow_job, say, say_how_to_go_on, warn

if TYPE_CHECKING:
    from cluster.submit import Submission


def submit(
    config: Annotated[str, typer.Argument(help="A search YAML, or the name of a shipped one.")],
    address: Address = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: algorithm.rounds=4."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The experiment's name.")] = None,
    storage: Annotated[
        Path | None,
        typer.Option(help="Folder for experiments that the cluster's machines share."),
    ] = None,
    working_dir: Annotated[
        Path, typer.Option(help="Folder to upload: a checkout of paploss, or your project.")
    ] = Path(),
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="For the job.")
    ] = None,
    install: Annotated[
        list[str] | None,
        typer.Option("--install", metavar="REQUIREMENT", help="Installed by pip for the job."),
    ] = None,
    entrypoint_cpus: Annotated[
        float,
        typer.Option(min=0, help="CPUs to set aside for the driver; 0: it runs on the head."),
    ] = 0,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Run a detector's Python config, here and there."),
    ] = False,
    follow: Annotated[bool, typer.Option(help="Show the log until the search has ended.")] = True,
) -> None:
    """Run the search CONFIG on the Ray cluster at --address.

    The working folder is uploaded; data and experiments are not: they are on the cluster.
    Submitted again after it was stopped or lost, a search goes on where it was.
    """
    from cluster.server import connect
    from cluster.submit import check_not_running
    from cluster.submit import submit as send

    items = [*(overrides or []), *([f"name={name}"] if name else [])]
    items += [f"storage={storage}"] if storage else []
    submission, notes = _prepare(config, items, working_dir, environment or [], trust_code)
    submission = replace(submission, install=tuple(install or ()), cpus=entrypoint_cpus)
    for line in notes:
        warn(line)
    server = connect(address, warn)
    check_not_running(server, submission.experiment)
    code = "with paploss itself" if submission.upload.has_paploss else (
        "without paploss, which the cluster must have, or --install"
    )  # fmt: skip
    say(f"uploading {submission.upload}, {code}")
    job = send(server, submission)
    say(f"submitted {job}; experiment: {submission.experiment}, on the cluster")
    if follow:
        follow_job(server, job, address)
    else:
        say_how_to_go_on(job, address)


def _prepare(
    config: str, items: list[str], folder: Path, environment: list[str], trust_code: bool
) -> tuple["Submission", list[str]]:
    """The submission, all checked that can be before it is sent, and notes on it."""
    from cluster.submit import Submission, parse_environment
    from cluster.token import find_token
    from cluster.upload import plan_upload
    from paploss.errors import BadConfig
    from search.run.submission import check_data_travels, check_for_cluster, entry_of

    variables, warnings = parse_environment(environment)
    entry, file = entry_of(config, folder.absolute())
    checked = check_for_cluster(config, items, trust_code=trust_code)
    token = find_token()
    upload = plan_upload(folder, token.file if token else None)
    if file is not None and not upload.holds(file):
        raise BadConfig(f"{file} would not be uploaded: a .gitignore or .rayignore excludes it.")
    if checked.data is not None:
        check_data_travels(checked.data, upload.holds, upload.folder)
    submission = Submission(
        entry, checked.name, checked.storage, tuple(items), upload, variables, trust_code=trust_code
    )
    return submission, [*checked.notes, *warnings]
