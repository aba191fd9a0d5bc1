"""What a run costs: seconds, taking turns with what it is compared with, and extra memory; and how
that is written down, as Markdown."""

import datetime
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

Run = Callable[[], object]


@dataclass(frozen=True)
class Meter:
    """Measures on a device.

    Attributes:
        device: "cpu" or "cuda".
        threads: of torch on a CPU. With one of them the clock is the CPU time of the process,
            which does not count what others do on a shared machine; with more it is the wall's.
    """

    device: str
    threads: int

    @property
    def clock(self) -> str:
        if self.device == "cuda":
            return "time between CUDA events"
        return "CPU time of the process" if self.threads == 1 else "wall time"

    def seconds(self, run: Run) -> float:
        if self.device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            return begin.elapsed_time(end) / 1e3
        clock = time.process_time if self.threads == 1 else time.perf_counter
        start = clock()
        run()
        return clock() - start

    def least(self, runs: Mapping[str, tuple[Run, int]]) -> dict[str, float]:
        """Seconds of each run by name: the least of its number of turns, all taking turns."""
        best = dict.fromkeys(runs, math.inf)
        for turn in range(max(turns for _, turns in runs.values())):
            for name, (run, turns) in runs.items():
                if turn < turns:
                    best[name] = min(best[name], self.seconds(run))
        return best

    def extra_bytes(self, run: Run) -> int:
        """The most that is allocated during `run`, which has been warmed up, beyond what was
        before it. Its results are part of it."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        # Else the profiler says on stderr that it starts and that it stops.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
        events = profiler.profiler.kineto_results.events()
        memory = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
        return max(accumulate((e.nbytes() for e in memory), initial=0))

    def header(self) -> str:
        """What was run, when, on what and by which clock."""
        # What tells the allocator to keep memory, or not, decides about a third of some times.
        malloc = [f"{name}={value}" for name, value in os.environ.items() if "MALLOC" in name]
        command = shlex.join([*malloc, "PYTHONPATH=.", "python", *sys.argv])
        where = f"{cpu_model()}, {self.threads} thread(s)"
        if self.device == "cuda":
            where = f"{torch.cuda.get_device_name()}; {where}"
        return (
            f"`{command}`, {datetime.date.today()}\n\n"
            f"torch {torch.__version__}, {where}. Clock: {self.clock}."
        )


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def ratio(a: float | None, b: float | None) -> str:
    """a / b, or "-" where one of them was not measured."""
    if a is None or b is None:
        return "-"
    return f"{a / b:,.0f}" if a >= 10 * b else f"{a / b:.2f}"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head(columns: Sequence[str]) -> str:
    return f"{row(columns)}\n{row(['---'] * len(columns))}"


_COLORS = {
    "ppo2": "C0", "guided": "C1", "cma-es": "C2", "cem": "C3", "random": "C4", "tpe": "C5",
    "turbo": "C6", "evolution": "C8",
}  # fmt: skip


def color_of(algorithm: str, number: int) -> str:
    """An algorithm's colour, the same in all figures; of others the one of their number."""
    return _COLORS.get(algorithm, f"C{number % 10}")
