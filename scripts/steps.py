"""Steps of the set-up: a line each on the screen, everything else in `.venv/setup.log`."""

from __future__ import annotations

import os
import queue
import re
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, Sequence  # noqa: UP035 (Python 3.7 has no other)

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "setup.log"
HEARTBEAT = 30.0  # seconds between signs of life
ENOUGH_FILES = 8  # before that many are compiled, an estimate of the rest would jump about


class SetupError(Exception):
    """What stopped the set-up and what to do about it."""


def parse_progress(line: str) -> tuple[int, int] | None:
    """(done, total) of a ninja line such as `[12/78] c++ ...`; None for any other."""
    match = re.match(r"\s*\[(\d+)/(\d+)\] ", line)
    return (int(match[1]), int(match[2])) if match else None


def describe_progress(elapsed: float, since: float, progress: tuple[int, int] | None) -> str:
    """`2 min 30 s, 12 of 78 files, about 9 min left`.

    Args:
        elapsed: seconds since the step began.
        since: seconds since the compiler began.
    """
    text = duration(elapsed)
    if progress:
        done, total = progress
        text += f", {done} of {total} files"
        if done >= ENOUGH_FILES:
            text += f", about {duration(since / done * (total - done))} left"
    return text


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Steps:
    """Runs the steps one by one: a line each on the screen, everything else in the log."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0

    def run(
        self,
        title: str,
        command: Sequence[object],
        hint: str,
        env: dict[str, str] | None = None,
        watch: Callable[[str], None] = lambda line: None,
        counted: bool = True,
    ) -> None:
        """Run `command`, quietly, with a sign of life every `HEARTBEAT` seconds.

        Args:
            watch: sees every line of the output; what it raises ends the command.

        Raises:
            SetupError: the command failed: the end of its output, and `hint`.
        """
        self.number += counted
        say(f"[{self.number}/{self.total}] {title}" if counted else f"      {title}")
        words = [str(word) for word in command]
        begin, tail = time.monotonic(), []
        compile_begin, progress = begin, None
        next_beat = begin + HEARTBEAT
        with LOG.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(map(shlex.quote, words))}\n")
            with Child(words, {**os.environ, **(env or {})}) as child:
                for line in child.lines():
                    if line is not None:
                        log.write(line)
                        log.flush()
                        tail = [*tail[-24:], line]
                        watch(line)
                        if parse_progress(line):
                            compile_begin = compile_begin if progress else time.monotonic()
                            progress = parse_progress(line)
                    now = time.monotonic()
                    if now >= next_beat:
                        next_beat = now + HEARTBEAT
                        say(
                            f"      {describe_progress(now - begin, now - compile_begin, progress)}"
                        )
        if child.code:
            shown = "".join(f"      | {line[:300].rstrip()}\n" for line in tail)
            raise SetupError(
                f"{title}: failed with exit code {child.code}.\n{shown}{hint}\n"
                f"The whole output is in {LOG.relative_to(ROOT)}. "
                "The same command goes on from here."
            )


class Child:
    """A process in a group of its own, so that its compilers end with it."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.code = 0

    def lines(self) -> Iterator[str | None]:
        """Each line of the output; None once a second while there is none."""
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            for line in self.process.stdout or ():
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=1.0)
            except queue.Empty:
                yield None
                continue
            if line is None:
                return
            yield line

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.code = self.process.wait()


def say(text: str) -> None:
    print(text, flush=True)
