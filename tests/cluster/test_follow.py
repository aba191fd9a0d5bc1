"""A job's log through a connection that breaks, and how a job ended."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from cluster import follow
from cluster.errors import NoCluster


class Server:
    """A jobs server that breaks the connection as it is told.

    Args:
        connections: the pieces of the log that each connection gives before it breaks; the last
            one gives all.
        pending: requests before the job starts.
    """

    def __init__(self, connections: list[list[str]], pending: int = 0) -> None:
        self.connections = connections
        self.pending = pending

    def job(self, job: str) -> Any:
        self.pending -= 1
        status = JobStatus.SUCCEEDED if not self.connections else JobStatus.RUNNING
        if self.pending >= 0:
            status = JobStatus.PENDING
        return SimpleNamespace(status=status, message="It may be waiting for CPUs.")

    async def tail(self, job: str) -> AsyncIterator[str]:
        pieces = self.connections.pop(0)
        for piece in pieces:
            yield piece
        if self.connections:
            raise NoCluster("gone")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(follow.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(follow.time, "monotonic", lambda: next(clock))


@pytest.mark.parametrize(
    "connections",
    [
        [["one\n", "two\n", "three\n"]],
        [["one\n"], ["one\n", "two\n", "three\n"]],
        [["one\ntw"], [], ["one\n"], ["one\ntwo\n", "three\n"]],
    ],
)
def test_every_line_is_shown_once(connections: list[list[str]]) -> None:
    shown: list[str] = []
    details = follow.follow(Server(connections), "id", shown.append)
    assert "".join(shown) == "one\ntwo\nthree\n"
    assert follow.has_ended(details)


def test_a_server_that_stays_away_is_given_up() -> None:
    with pytest.raises(NoCluster, match="gone"):
        follow.follow(Server([[] for _ in range(200)]), "id", lambda text: None)


def test_a_job_that_waits_says_once_what_for() -> None:
    shown: list[str] = []
    follow.follow(Server([["log\n"]], pending=40), "id", shown.append)
    assert shown == ["waiting for the cluster: It may be waiting for CPUs.\n", "log\n"]


@pytest.mark.parametrize(
    ("message", "log", "code", "said"),
    [
        ("failed", "/usr/bin/python: No module named search.cli\n", 1, "add --install"),
        ("failed", "sh: python: not found\n", 127, "no `python`"),
        ("failed", "error: no such data\n", 2, "exit code 2"),
        ("Traceback:\n  File x\nRuntimeError: no space\n'''\n", "", None, "RuntimeError: no space"),
        ("", "", None, "no reason was given"),
    ],
)
def test_why_a_job_failed(message: str, log: str, code: int | None, said: str) -> None:
    details = SimpleNamespace(message=message, driver_exit_code=code)
    problem = follow.problem_of(details, log)
    assert said in problem
    assert "\n" not in problem
