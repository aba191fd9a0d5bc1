"""A search on a cluster of three machines, from a fourth that reaches it over HTTP alone.

The user's machine has no Ray address, only the jobs server's and the token. A search is submitted,
stopped in its middle, submitted again, followed to its end, and its results are fetched.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.follow import stop
from cluster.server import connect
from tests.service.conftest import TRIALS, Experiment
from tests.service.local_cluster import LocalCluster

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("paploss", "loss", "search", "trainers", "cluster", "configs")
# Who imports the uploaded code, and from where: written by that code, on each machine.
MARK = """
import os, pathlib
pathlib.Path(os.environ["MARKS"], str(os.getpid())).write_text(__file__)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head that takes no trial, and two workers that take one each."""
    with LocalCluster(workers=2, head_cpus=0) as cluster:
        yield cluster


@dataclass
class User:
    """Somebody with a folder and the address and token of a cluster."""

    folder: Path
    env: dict[str, str]

    def start(self, *arguments: object, **changes: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "search.cli", *map(str, arguments)],
            cwd=self.folder, env=self.env | changes, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: object, **changes: str) -> tuple[int, str, str]:
        """(exit code, standard output, standard error) of `paploss` ARGUMENTS."""
        process = self.start(*arguments, **changes)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def user(
    cluster: LocalCluster, search_yaml: Path, tmp_path_factory: pytest.TempPathFactory
) -> User:
    """Has a checkout of paploss, with code that tells where it runs, and a search of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    with (folder / "trainers" / "__init__.py").open("a") as file:
        file.write(MARK)
    (folder / "marks").mkdir()
    shutil.copy(search_yaml, folder / "mine.yaml")
    env = {k: v for k, v in cluster.env.items() if k != "RAY_ADDRESS"}
    env |= {"RAY_API_SERVER_ADDRESS": cluster.jobs_url, "MARKS": str(folder / "marks")}
    return User(folder, env)


@dataclass
class Story:
    """What a search went through, and what the user was told: (exit code, output, errors)."""

    experiment: Experiment
    marks: Path
    followed: tuple[int, str, str]
    refused: tuple[int, str, str]
    stopped: tuple[int, str, str]
    log: str
    kept: dict[str, object]
    again: tuple[int, str, str]


@pytest.fixture(scope="module")
def story(user: User, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A search that is followed until Ctrl-C, stopped later, and submitted again."""
    storage, marks = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("marks")
    experiment = Experiment(storage / "one")
    command = ("submit", "mine.yaml", "--storage", storage, "--env", f"MARKS={marks}")
    following = user.start(*command)
    try:
        out = ""
        while "Running entrypoint" not in out:
            line = following.stdout.readline()
            assert line, following.communicate()
            out += line
        os.kill(following.pid, signal.SIGINT)
        rest, err = following.communicate(timeout=60)
    finally:
        following.kill()
    refused = user.run(*command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", user.env["RAY_AUTH_TOKEN"])
        server = connect(user.env["RAY_API_SERVER_ADDRESS"], print)
    wait_for(lambda: experiment.count >= 3)
    # What `paploss jobs stop` does, without the seconds until it has started.
    (job,) = [job.submission_id for job in server.jobs()]
    stop(server, job)
    stopped = user.run("jobs", "stop", job)
    return Story(
        experiment, marks, (following.returncode, out + rest, err), refused, stopped,
        user.run("jobs", "logs", job)[1], experiment.records, user.run(*command),
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(0.05)


def job_ids(user: User) -> list[str]:
    code, out, err = user.run("jobs")
    assert code == 0, err
    return [line.split()[0] for line in out.splitlines() if line.startswith("paploss-")]


def test_ctrl_c_leaves_the_job_running(story: Story) -> None:
    code, out, err = story.followed
    assert code == 130
    assert "Running entrypoint" in out
    assert "runs on" in err and "paploss jobs stop paploss-one-" in err
    assert "Traceback" not in err
    code, _, err = story.refused
    assert code == 2
    assert "is being run by the job paploss-one-" in err


def test_a_stopped_search_has_ended_cleanly(story: Story) -> None:
    code, out, err = story.stopped
    assert code == 0, err
    assert "has ended before: stopped" in out
    assert 3 <= len(story.kept) < TRIALS
    # It was not killed: it had the time to say how to go on.
    assert "interrupted; " in story.log


def test_submitted_again_it_goes_on_to_its_end(story: Story) -> None:
    code, out, err = story.again
    assert code == 0, (out, err)
    assert f"{TRIALS}/{TRIALS} trials" in out  # the driver's own lines, followed
    assert "paploss jobs fetch paploss-one-" in err
    records = story.experiment.records
    assert {key: records[key] for key in story.kept} == story.kept


def test_it_found_what_a_search_without_a_cluster_finds(story: Story, reference: object) -> None:
    assert story.experiment.what_counts() == reference.experiment.what_counts()


def test_trials_ran_on_both_workers_with_the_code_that_was_sent(
    story: Story, cluster: LocalCluster
) -> None:
    workers = {node.ip for node in cluster.workers}
    assert {record["node"] for record in story.experiment.records.values()} == workers
    places = {mark.read_text() for mark in story.marks.iterdir()}
    for node in (cluster.head, *cluster.workers):  # the head's is the driver
        own = str(cluster.folder / node.ip)
        assert any(place.startswith(own) for place in places), places
    assert all("working_dir_files" in place for place in places)


def test_results_are_fetched_as_they_are_there(story: Story, user: User, tmp_path: Path) -> None:
    job = job_ids(user)[-1]
    out = tmp_path / "results"
    code, said, err = user.run("jobs", "fetch", job, "--out", out)
    assert code == 0, err
    assert f"paploss train {out / 'best.yaml'}" in said
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    names = {str(path) for path in files}
    assert {"best.yaml", "report.html", "history.csv", "config.yaml"} <= names
    assert len([name for name in names if name.startswith("journal/")]) == TRIALS
    assert len([name for name in names if name.startswith("policy/")]) == 3  # before, 2 rounds
    for path in files - {Path("fetched.json")}:
        assert (out / path).read_bytes() == (story.experiment.path / path).read_bytes()
    assert len(job_ids(user)) == 2  # fetching is no job that the user has to see


def test_what_cannot_be_fetched_is_said_in_a_line(story: Story, user: User, tmp_path: Path) -> None:
    nowhere = story.experiment.path.parent / "two"
    for job, said in (("paploss-none-1", "has no job"), (nowhere, "there is no experiment at")):
        code, out, err = user.run("jobs", "fetch", job, "--out", tmp_path / "x")
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1
        assert said in err


def test_a_wrong_token_is_refused_in_a_line(user: User) -> None:
    nobody = {"RAY_AUTH_TOKEN": "", "HOME": "/nonexistent"}
    for answer in (
        user.run("submit", "mine.yaml", "--storage", "/shared", RAY_AUTH_TOKEN="0" * 64),
        user.run("jobs", **nobody),
    ):
        code, out, err = answer
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1
        assert "token" in err


def test_the_token_is_nowhere(story: Story, cluster: LocalCluster) -> None:
    said = (*story.followed, *story.stopped, *story.again, story.log)
    assert cluster.token not in "".join(map(str, said))
    logs = [path for path in cluster.folder.rglob("logs/*") if path.is_file()]
    assert len(logs) > 10
    written = [*logs, *story.experiment.path.rglob("*")]
    found = [p for p in written if p.is_file() and cluster.token.encode() in p.read_bytes()]
    assert found == []
