"""Trials in processes of their own: what they leave behind, and how they die.

Faults are real ones. A `sitecustomize` module, which the server's Python imports when it starts,
puts them in front of `run_trial`; a trial asks for one by the name of its folder.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainers.datasets.coco import DataConfig
from trainers.trial import TrialResult, TrialSpec
from trainers.worker import TrialProcess, WorkerLost

MakeSpec = Callable[..., TrialSpec]
ROOT = Path(__file__).parents[2]

FAULTS = """
import sys
if "trainers.worker" in sys.orig_argv:
    import ctypes, os, time
    import trainers.trial as trial

    real = trial.run_trial

    def run_trial(spec, folder, progress=None):
        fault = folder.name
        if fault == "hang" and os.fork() == 0:  # as a process that loads images would
            (folder / "helper.txt").write_text(str(os.getpid()))
            time.sleep(600)
        (folder / "pid.txt").write_text(str(os.getpid()))
        if fault == "exit":
            os._exit(3)
        if fault == "leave":
            sys.exit("enough")
        if fault == "segfault":
            ctypes.string_at(0)
        if fault == "hang":
            time.sleep(600)
        if fault == "slow":
            for _ in range(10):
                time.sleep(0.5)
                progress()
        return real(spec, folder, progress)

    trial.run_trial = run_trial
"""

OWNER = """
import json, sys
from pathlib import Path
from trainers.trial import TrialSpec
from trainers.worker import TrialProcess
process = TrialProcess()
spec, server, trial = map(Path, sys.argv[1:])
server.write_text(str(process.pid))
process.run(TrialSpec.model_validate(json.loads(spec.read_text())), trial, 600)
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], TrialProcess]]:
    """Starts servers with the faults in them, and closes them in the end."""
    servers: list[TrialProcess] = []

    def begin() -> TrialProcess:
        servers.append(TrialProcess())
        return servers[-1]

    with pytest.MonkeyPatch.context() as patch:
        with_faults(tmp_path_factory.mktemp("faults"), patch)
        yield begin
    for server in servers:
        server.close()


def with_faults(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "sitecustomize.py").write_text(FAULTS)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))


@pytest.fixture(scope="module")
def server(start: Callable[[], TrialProcess]) -> TrialProcess:
    """For the tests that leave it alive; a start takes seconds."""
    return start()


@pytest.fixture(scope="module")
def fresh(start: Callable[[], TrialProcess]) -> TrialProcess:
    """One that has run no trial before."""
    return start()


def without_times(result: TrialResult) -> TrialResult:
    return result.model_copy(update={"timing": {}})


def wait_for(path: Path, seconds: float = 60) -> int:
    """The process id that a file names, once it does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        time.sleep(0.05)
    raise TimeoutError(path)


def gone(pids: list[int], seconds: float = 5) -> bool:
    """Whether all these processes end soon; a zombie has ended."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    until = time.monotonic() + seconds
    while any(alive(process) for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def members(session: int) -> list[int]:
    """The living processes of a session: a trial and all that it started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and alive(process):
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_every_trial_has_a_process_of_its_own(
    server: TrialProcess, make_spec: MakeSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = [server.run(make_spec(), tmp_path / name, 60) for name in ("one", "two")]
    assert [result.error for result in results] == [None, None]
    assert without_times(results[0]) == without_times(results[1])
    pids = {wait_for(tmp_path / name / "pid.txt") for name in ("one", "two")}
    assert len(pids | {server.pid, os.getpid()}) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)
    # What a trial says is kept with it, and does not mix with what others say.
    for name in ("one", "two"):
        assert "Epoch(train)" in (tmp_path / name / "train.log").read_text()
    assert "Epoch(train)" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_nothing_of_a_trial_is_left_for_the_next(
    server: TrialProcess, fresh: TrialProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    before = make_spec(
        criterion={"type": "focal_giou"}, theta=None, seed=5, threads=2,
        schedule={"amp": True, "learning_rate": 1e30, "optimizer": "sgd"},
    )  # fmt: skip
    assert server.run(before, tmp_path / "before", 60).status == "diverged"
    spec = make_spec(evaluate=("val", "test"))
    after = server.run(spec, tmp_path / "after", 60)

    alone = fresh.run(spec, tmp_path / "alone", 60)
    assert after.status == alone.status == "ok"
    assert without_times(after) == without_times(alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exit", "ended with exit code 3 before it had a result"),
        ("hang", "was killed (signal 9): often the machine was out of memory"),
        ("segfault", "crashed with signal 11 (Segmentation fault)"),
    ],
)
def test_a_death_is_told_and_the_next_trial_runs(
    server: TrialProcess, make_spec: MakeSpec, tmp_path: Path, fault: str, message: str
) -> None:
    spec = make_spec()
    trial = tmp_path / "hang" / "pid.txt"
    with killing(trial, trial) if fault == "hang" else contextlib.nullcontext():
        result = server.run(spec, tmp_path / fault, 60)
    assert result == TrialResult(status="failed", error=result.error)
    assert result.error is not None
    assert message in result.error
    assert gone(members(wait_for(tmp_path / fault / "pid.txt")), 1)

    following = server.run(spec, tmp_path / "next", 60)
    assert following.error is None
    assert following.status == "ok"


@contextlib.contextmanager
def killing(victim: Path, when: Path) -> Iterator[None]:
    """Kills, from outside, the process that `victim` names, as soon as `when` is there."""
    code = (
        "import os, sys, time, pathlib\n"
        "victim, when = map(pathlib.Path, sys.argv[1:])\n"
        "while not (when.exists() and when.read_text()): time.sleep(.05)\n"
        "os.kill(int(victim.read_text()), 9)\n"
    )
    killer = subprocess.Popen([sys.executable, "-c", code, str(victim), str(when)])
    try:
        yield
    finally:
        assert killer.wait(60) == 0


@pytest.mark.slow
def test_an_exception_is_a_result(
    server: TrialProcess,
    make_spec: MakeSpec,
    copy_data: Callable[[Path], DataConfig],
    tmp_path: Path,
) -> None:
    data = copy_data(tmp_path / "data")
    data.train.annotations.unlink()
    result = server.run(make_spec(data=data), tmp_path / "trial", 60)
    assert result.status == "failed"
    assert result.error is not None
    assert "train.json" in result.error


@pytest.mark.slow
def test_a_trial_that_leaves_early_says_why_in_its_log(
    server: TrialProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    result = server.run(make_spec(), tmp_path / "leave", 60)
    assert result.error == "the trial's process ended with exit code 1 before it had a result."
    assert "SystemExit: enough" in (tmp_path / "leave" / "train.log").read_text()


@pytest.mark.slow
def test_a_folder_is_meant_from_here(
    server: TrialProcess, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert server.run(make_spec(), Path("some") / "where", 60).status == "ok"
    assert (tmp_path / "some" / "where" / "train.log").is_file()


@pytest.mark.slow
def test_processes_that_load_images_report_and_end_with_their_trial(
    server: TrialProcess,
    make_spec: MakeSpec,
    copy_data: Callable[[Path], DataConfig],
    tmp_path: Path,
) -> None:
    data = copy_data(tmp_path / "data")
    broken = {str(data.train.images / f"{index:06d}.png") for index in (3, 8)}
    for path in broken:
        Path(path).write_bytes(b"no picture")
    spec = make_spec(data=data, schedule={"workers": 2, "epochs": 2})
    result = server.run(spec, tmp_path / "trial", 60)
    assert result.error is None
    assert set(result.skipped_images) == broken
    assert gone(members(wait_for(tmp_path / "trial" / "pid.txt")), 1)


@pytest.mark.slow
def test_a_slow_trial_is_no_stall(
    server: TrialProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """5 s, longer than a trial may be silent."""
    assert server.run(make_spec(), tmp_path / "slow", 4).status == "ok"


@pytest.mark.slow
def test_a_stall_is_noticed_and_ended(
    start: Callable[[], TrialProcess], make_spec: MakeSpec, tmp_path: Path
) -> None:
    server = start()
    began = time.monotonic()
    with pytest.raises(WorkerLost, match="made no progress for 2 s"):
        server.run(make_spec(), tmp_path / "hang", 2)
    assert 2 <= time.monotonic() - began < 8
    pids = [wait_for(tmp_path / "hang" / name) for name in ("pid.txt", "helper.txt")]
    assert gone([server.pid, *pids])
    with pytest.raises(WorkerLost, match="the training server has ended"):
        server.run(make_spec(), tmp_path / "next", 2)


@pytest.mark.slow
def test_closing_in_the_middle_ends_the_trial(
    fresh: TrialProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """As when Ray ends an actor, or a user interrupts a script."""

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(KeyboardInterrupt):
            fresh.run(make_spec(), tmp_path / "hang", 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    pids = [wait_for(tmp_path / "hang" / name) for name in ("pid.txt", "helper.txt")]
    assert not gone(pids, 0)
    fresh.close()
    assert gone([fresh.pid, *pids])
    with pytest.raises(WorkerLost, match="the training server has ended"):
        fresh.run(make_spec(), tmp_path / "next", 60)


@pytest.mark.slow
def test_a_killed_owner_leaves_no_training_behind(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_faults(tmp_path, monkeypatch)
    (tmp_path / "spec.json").write_text(json.dumps(make_spec().model_dump(mode="json")))
    files = [str(tmp_path / name) for name in ("spec.json", "server.txt", "hang")]
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *files])
    server = wait_for(tmp_path / "server.txt")
    pids = [wait_for(tmp_path / "hang" / name) for name in ("pid.txt", "helper.txt")]
    assert psutil.Process(pids[0]).ppid() == server
    owner.kill()
    owner.wait()
    assert gone([server, *pids])


@pytest.mark.slow
def test_a_killed_server_takes_its_trial_along(
    server: TrialProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """What runs without a server runs without a guard: nobody would ever end it.

    The last test: it takes the server from the others.
    """
    victim, trial = tmp_path / "server.txt", tmp_path / "slow" / "pid.txt"
    victim.write_text(str(server.pid))
    began = time.monotonic()
    with killing(victim, trial), pytest.raises(WorkerLost, match="the training server has ended"):
        server.run(make_spec(), trial.parent, 30)
    assert time.monotonic() - began < 4, "before the trial would have ended by itself"
    assert gone([wait_for(trial)], 1)
