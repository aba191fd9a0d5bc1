"""A job followed from elsewhere: its log as it grows, and how it ended."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.errors import NoCluster
from cluster.server import JobsServer
from cluster.submit import STOP_SECONDS

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

_RETRY_SECONDS = 60
_QUIET_SECONDS = 10
_NOT_FOUND = 127  # a shell's exit code
_NO_CODE = ("No module named search", "No module named 'search'", "No module named 'paploss'")


def follow(server: JobsServer, job: str, write: Callable[[str], object]) -> "JobDetails":
    """Pass the job's log on as it grows, from its beginning, until it has ended.

    A connection that breaks (a laptop that slept, a tunnel that was closed) is made again for a
    minute, and the log goes on where it was.

    Raises:
        NoJob: there is no such job.
        NoCluster: the server is gone for longer than that.
    """
    shown, lost = 0, None
    _await_start(server, job, write)

    async def tail() -> None:
        nonlocal shown, lost
        seen = 0  # characters since the beginning, on this connection
        async for text in server.tail(job):
            fresh = text[max(0, shown - seen) :]
            seen += len(text)
            shown, lost = max(shown, seen), None
            if fresh:
                write(fresh)

    while True:
        try:
            asyncio.run(tail())
            details = server.job(job)
            if has_ended(details):
                return details
        except NoCluster:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > _RETRY_SECONDS:
                raise
        time.sleep(1)


def _await_start(server: JobsServer, job: str, write: Callable[[str], object]) -> None:
    """Until the job has started; it says what it waits for, if that takes long."""
    begin, told = time.monotonic(), False
    while (details := server.job(job)).status == "PENDING":
        if not told and time.monotonic() - begin > _QUIET_SECONDS:
            write(f"waiting for the cluster: {details.message}\n")
            told = True
        time.sleep(0.5)


def stop(server: JobsServer, job: str) -> "JobDetails":
    """End a job and wait until it has ended: a search takes some seconds to do so cleanly.

    Raises:
        NoCluster: it does not end.
    """
    server.stop(job)
    end = time.monotonic() + STOP_SECONDS + 30
    while not has_ended(details := server.job(job)):
        if time.monotonic() > end:
            raise NoCluster(f"{job} has been told to stop, but still runs: try again.")
        time.sleep(0.3)
    return details


def has_ended(details: "JobDetails") -> bool:
    return details.status.is_terminal()


def problem_of(details: "JobDetails", log: str) -> str:
    """Why a job has failed, in a line or two.

    Args:
        log: what the job has printed.
    """
    said = details.message or ""
    if any(words in log + said for words in _NO_CODE):
        return (
            "the cluster's Python has no paploss. Submit from a checkout of paploss, whose code "
            "is then uploaded, use an image that has it, or add --install paploss."
        )
    if details.driver_exit_code == _NOT_FOUND:
        return (
            "the cluster has no `python`. Activate paploss's environment there before `ray start`."
        )
    if details.driver_exit_code is not None:
        return f"the search has ended with exit code {details.driver_exit_code}; its log says why"
    lines = [line.strip() for line in said.splitlines() if line.strip(" .'\"")]
    return lines[-1][:500] if lines else "no reason was given"
