"""Trials in processes of their own, without paying for the start of each.

A server process imports torch and mmdet once and forks a child for every trial. So nothing of
one trial is left for the next, a crash or a lack of memory ends one trial and not its slot, and
a trial that hangs can be killed. Requests go in on the server's standard input and events come
back on a pipe of their own, a line of JSON each; when the server's input ends, because its owner
closed it or died, the server kills its child and ends too.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.trial import TrialResult, TrialSpec, run_trial

_PROGRESS_SECONDS = 1.0
_POLL_SECONDS = 0.05
_START_SECONDS = 300.0
_PR_SET_PDEATHSIG = 1


class WorkerLost(Exception):
    """The training process stalled or could not be started: no evidence about the trial."""


class TrialProcess:
    """Runs trials one after another, each in a fresh process.

    Raises:
        WorkerLost: the server does not come up.
    """

    def __init__(self) -> None:
        receive, send = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "trainers.worker", str(send)],
            stdin=subprocess.PIPE,
            pass_fds=[send],
            # Imports ask whether there is a GPU; asked the usual way, no forked child could use it.
            env={**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            cwd=Path(__file__).parents[1],
        )
        os.close(send)
        self._events = os.fdopen(receive, "rb", buffering=0)
        self._buffer = b""
        self._next_event(_START_SECONDS)

    @property
    def pid(self) -> int:
        """Of the server; a trial's own process is its child."""
        return self._server.pid

    def run(self, spec: TrialSpec, folder: Path, stall_seconds: float) -> TrialResult:
        """Run `spec` to its end; its log goes to `folder`/train.log.

        Raises:
            WorkerLost: no progress for `stall_seconds`, or the server itself is gone.
        """
        # The server has a working directory of its own.
        folder = folder.absolute()
        request = json.dumps({"spec": spec.model_dump(mode="json"), "folder": str(folder)})
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(request.encode() + b"\n")
            self._server.stdin.flush()
        except (OSError, ValueError) as error:  # a broken pipe, or one closed here
            raise WorkerLost("the training server has ended.") from error
        result = None
        while "exit" not in (event := self._next_event(stall_seconds)):
            if "result" in event:
                result = TrialResult.model_validate(event["result"])
        # Only now is its process gone, and its memory free for the next trial.
        return result or TrialResult(status="failed", error=_how_it_died(event["exit"]))

    def close(self) -> None:
        """End the server, and with it a trial that still runs."""
        if self._server.stdin is not None:
            with contextlib.suppress(OSError):
                self._server.stdin.close()
        try:
            self._server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._events.close()

    def _next_event(self, stall_seconds: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._events], [], [], stall_seconds)
            if not ready:
                self.close()
                raise WorkerLost(f"the training process made no progress for {stall_seconds:g} s.")
            received = self._events.read(65536)
            if not received:
                raise WorkerLost("the training server has ended; its log says why.")
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        event: dict[str, Any] = json.loads(line)
        return event


def _how_it_died(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "the trial's process was killed (signal 9): often the machine was out of memory."
    if code < 0:
        return f"the trial's process crashed with signal {-code} ({signal.strsignal(-code)})."
    return f"the trial's process ended with exit code {code} before it had a result."


def serve(events: int) -> None:
    """The server's loop; ends with its standard input."""
    # Preload here, once, what a trial needs; nothing of it may start threads or touch a GPU.
    from trainers.mmdet.training import preload

    preload()
    _send(events, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run_child(request, events)
        status = _wait(child)
        if status is None:
            return
        _send(events, {"exit": status})


def _wait(child: int) -> int | None:
    """The exit status of `child`; None, with the child killed, if standard input ends first."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill(os.killpg, child)  # what it started may outlive it
            return status
        ready, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
        # Nothing is sent while a trial runs, so readable means closed.
        if ready:
            _kill(os.killpg, child)
            _kill(os.kill, child)  # just forked, it has no group of its own yet
            os.waitpid(child, 0)
            return None


def _kill(kill: Callable[[int, int], None], process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        kill(process, signal.SIGKILL)


def _die_with_server() -> None:
    """Where the system is Linux; elsewhere a trial whose server is killed trains on unseen."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run_child(request: dict[str, Any], events: int) -> None:
    """One trial; never returns."""
    code = 1
    try:
        _die_with_server()
        os.setsid()  # its own group, so that its data loaders die with it
        folder = Path(request["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        last = 0.0

        def progress() -> None:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_SECONDS:
                last = time.monotonic()
                _send(events, {"progress": True})

        result = run_trial(TrialSpec.model_validate(request["spec"]), folder, progress)
        _send(events, {"result": result.model_dump(mode="json")})
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _send(events: int, event: dict[str, Any]) -> None:
    line = json.dumps(event).encode() + b"\n"
    while line:
        line = line[os.write(events, line) :]


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches every process there; ending is the owner's to order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(int(sys.argv[1]))
