"""The server that forks a process for every trial: what `trainers.worker` starts and talks to.

Requests come in on standard input and events go out on a pipe, a line of JSON each.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paploss.files import is_of_storage
from trainers.distributed import PeersLost, this_worker
from trainers.trial import TrialSpec, failure

_PROGRESS_SECONDS = 1.0
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


def serve(events: int, trials: Any) -> None:
    """The server's loop; ends with its standard input. `trials`: see `TrialProcess`."""
    # Once, what a trial needs; nothing of it may start threads or touch a GPU.
    trials.preload()
    _send(events, {"ready": True})
    requests = _Requests()
    while (request := requests.take()) is not None:
        if "stop" in request:  # what was to be stopped has ended meanwhile
            continue
        child = os.fork()
        if child == 0:
            _run_child(request, events, trials.run_trial)
        status = _wait(child, requests)
        if status is None:
            return
        _send(events, {"exit": status})


class _Requests:
    """Lines of standard input, read so that none waits unseen in Python's own buffer."""

    def __init__(self) -> None:
        self._buffer = b""
        self._ended = False

    def wait(self, seconds: float) -> bool:
        """Whether a request, or the end of all, is there within `seconds`."""
        if not self._ended and b"\n" not in self._buffer:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            if ready:
                self._read()
        return self._ended or b"\n" in self._buffer

    def take(self) -> dict[str, Any] | None:
        """The next request, waited for; None after the last."""
        while not self._ended and b"\n" not in self._buffer:
            self._read()
        if self._ended:
            return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        request: dict[str, Any] = json.loads(line)
        return request

    def _read(self) -> None:
        received = os.read(sys.stdin.fileno(), 65536)
        self._buffer += received
        self._ended = not received


def _wait(child: int, requests: _Requests) -> int | None:
    """The exit status of `child`, which ends when it is told to stop, or when input ends.

    None if input has ended.
    """
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill(os.killpg, child)  # what it started may outlive it
            return status
        if requests.wait(_POLL_SECONDS):
            # While a trial runs, a request can only be to stop it.
            request = requests.take()
            _kill(os.killpg, child)
            _kill(os.kill, child)  # just forked, it has no group of its own yet
            _, status = os.waitpid(child, 0)
            return None if request is None else status


def _kill(kill: Callable[[int, int], None], process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        kill(process, signal.SIGKILL)


def _die_with_server() -> None:
    """Where the system is Linux; elsewhere a trial whose server is killed trains on unseen."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run_child(request: dict[str, Any], events: int, run_trial: Callable[..., Any]) -> None:
    """One trial, or one worker's part in it; never returns."""
    code = 1
    try:
        _die_with_server()
        os.setsid()  # its own group, so that its data loaders die with it
        os.environ.update(request["environment"])
        worker = this_worker(request["environment"])
        folder = Path(request["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / worker.own("train.log")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        last = 0.0

        def progress() -> None:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_SECONDS:
                last = time.monotonic()
                _send(events, {"progress": True})

        spec = TrialSpec.model_validate(request["spec"])
        together = {"worker": worker} if worker.size > 1 else {}
        try:
            result = run_trial(spec, folder, progress, **together)
            _send(events, {"result": result.model_dump(mode="json")})
        except PeersLost as error:
            traceback.print_exc()
            _send(events, {"peers_lost": str(error)})
        code = 0
    except BaseException as error:
        if is_of_storage(error):  # of the log, say: nothing that the trial is to blame for
            _send(events, {"result": failure(error).model_dump(mode="json")})
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _send(events: int, event: dict[str, Any]) -> None:
    line = json.dumps(event).encode() + b"\n"
    while line:
        line = line[os.write(events, line) :]
