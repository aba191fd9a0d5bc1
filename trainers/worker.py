"""Trials in processes of their own, without paying for the start of each.

A server process (`trainers.server`) imports torch and mmdet once and forks a child for every
trial. So nothing of one trial is left for the next, a crash or a lack of memory ends one trial and
not its slot, and a trial that hangs can be killed. When the server's input ends, because its owner
closed it or died, the server kills its child and ends too.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.distributed import OF_TORCHRUN, PeersLost
from trainers.trial import TrialResult, TrialSpec

_START_SECONDS = 300.0
_STOP_SECONDS = 10.0


class WorkerLost(Exception):
    """The training process stalled or could not be started: no evidence about the trial."""


class TrialProcess:
    """Runs trials one after another, each in a fresh process.

    Args:
        trials: the module whose `run_trial` runs a trial, after its `preload` has been called
            once, in the server; see `trainers.trial`.

    Raises:
        WorkerLost: the server does not come up.
    """

    def __init__(self, trials: str = "trainers.trial") -> None:
        receive, send = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "trainers.worker", str(send), trials],
            stdin=subprocess.PIPE,
            pass_fds=[send],
            env=_environment(),
            cwd=Path(__file__).parents[1],
        )
        os.close(send)
        self._events = os.fdopen(receive, "rb", buffering=0)
        self._buffer = b""
        self._running = False
        self._result: TrialResult | None = None
        self._peers_lost: str | None = None
        self._patience = _START_SECONDS
        self._last_event = time.monotonic()
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
        self.start(spec, folder, stall_seconds)
        while (result := self.poll(stall_seconds)) is None:
            pass
        return result

    def start(
        self,
        spec: TrialSpec,
        folder: Path,
        stall_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Begin to run `spec`; `poll` tells how it goes.

        Args:
            environment: torchrun's variables for a worker that trains together with others.

        Raises:
            WorkerLost: the server is gone.
        """
        request = {
            "spec": spec.model_dump(mode="json"),
            # The server has a working directory of its own.
            "folder": str(folder.absolute()),
            "environment": dict(environment or {}),
        }
        self._result = self._peers_lost = None
        self._patience = stall_seconds
        self._last_event = time.monotonic()
        self._request(request)
        self._running = True

    def poll(self, seconds: float) -> TrialResult | None:
        """The result, waited for up to `seconds`; None while the trial runs.

        Raises:
            WorkerLost: no progress for the stall seconds, or the server itself is gone.
            PeersLost: the trial cannot go on without another worker that has left it.
        """
        until = time.monotonic() + seconds
        while self._running:
            event = self._next_event(max(0.0, until - time.monotonic()))
            if event is None:
                return None
            self._take(event)
        if self._peers_lost is not None:
            raise PeersLost(self._peers_lost)
        return self._result

    def stop(self) -> None:
        """End the trial that runs, if one does; the server is there for the next.

        Returns when the trial's process, and what it held, is gone.
        """
        if not self._running:
            return
        with contextlib.suppress(WorkerLost):
            self._request({"stop": True})
            until = time.monotonic() + _STOP_SECONDS
            while self._running and time.monotonic() < until:
                event = self._next_event(_STOP_SECONDS)
                if event is not None:
                    self._take(event)
        if self._running:
            self.close()

    def close(self) -> None:
        """End the server, and with it a trial that still runs."""
        self._running = False
        if self._server.stdin is not None:
            with contextlib.suppress(OSError):
                self._server.stdin.close()
        try:
            self._server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._events.close()

    def _request(self, request: Mapping[str, Any]) -> None:
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
        except (OSError, ValueError) as error:  # a broken pipe, or one closed here
            raise WorkerLost("the training server has ended.") from error

    def _take(self, event: Mapping[str, Any]) -> None:
        if "result" in event:
            self._result = TrialResult.model_validate(event["result"])
        elif "peers_lost" in event:
            self._peers_lost = event["peers_lost"]
        elif "exit" in event:
            # Only now is its process gone, and its memory free for the next trial.
            self._running = False
            if self._result is None:
                self._result = TrialResult(status="failed", error=_how_it_died(event["exit"]))

    def _next_event(self, seconds: float) -> dict[str, Any] | None:
        """The next event, or None if none comes within `seconds`."""
        while b"\n" not in self._buffer:
            left = self._last_event + self._patience - time.monotonic()
            ready, _, _ = select.select([self._events], [], [], max(0.0, min(seconds, left)))
            if not ready:
                if seconds < left:
                    return None
                self.close()
                raise WorkerLost(f"the training process made no progress for {self._patience:g} s.")
            received = self._events.read(65536)
            if not received:
                self._running = False
                raise WorkerLost("the training server has ended; its log says why.")
            self._buffer += received
        self._last_event = time.monotonic()
        line, self._buffer = self._buffer.split(b"\n", 1)
        event: dict[str, Any] = json.loads(line)
        return event


def _environment() -> dict[str, str]:
    """Of a server: ours, but a cluster's own job variables must not make a trial one of several."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_TORCHRUN}
    # Imports ask whether there is a GPU; asked the usual way, no forked child could use it.
    return kept | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def _how_it_died(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "the trial's process was killed (signal 9): often the machine was out of memory."
    if code < 0:
        return f"the trial's process crashed with signal {-code} ({signal.strsignal(-code)})."
    return f"the trial's process ended with exit code {code} before it had a result."


if __name__ == "__main__":
    from trainers.server import serve

    # Ctrl-C in a terminal reaches every process there; ending is the owner's to order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(int(sys.argv[1]), importlib.import_module(sys.argv[2]))
