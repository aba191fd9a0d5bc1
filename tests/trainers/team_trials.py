"""Trials without a detector for test_team.py: all they do is meet. See `TrialProcess`, `trials`.

What befalls which worker is said by the folder's name, such as "crash-1".
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from trainers.distributed import ALONE, PeersLost, Worker, is_of_peers, joined
from trainers.trial import TrialResult, TrialSpec


def preload() -> None:
    pass


def run_trial(
    spec: TrialSpec, folder: Path, progress: Callable[[], None], worker: Worker = ALONE
) -> TrialResult:
    torch.set_num_threads(1)
    fault, _, of = folder.name.partition("-")
    hit = of == str(worker.rank)
    Path(folder / f"pid-{worker.rank}.txt").write_text(str(os.getpid()))
    try:
        with joined(worker, "cpu"):
            total = torch.tensor(float(worker.rank + 1))
            for _ in range(5):
                progress()
                _add_up(total)
            if hit and fault == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            if hit and fault == "exit":
                os._exit(3)
            if hit and fault == "raise":
                raise MemoryError("no room for worker " + of)
            if hit and fault == "hang":
                time.sleep(600)
            if fault == "diverge":
                return TrialResult(
                    status="diverged", reward=0, error="NaN", skipped_images={f"{worker.rank}": ""}
                )
            _add_up(total)
    except MemoryError as error:
        time.sleep(0.3)  # the others may well be first to tell
        return TrialResult(status="failed", error=f"{type(error).__name__}: {error}")
    except RuntimeError as error:
        if is_of_peers(error):
            raise PeersLost(str(error)) from error
        raise
    print(f"worker {worker.rank} of {worker.size}", file=sys.stderr)
    return TrialResult(
        status="ok",
        reward=0.5 if worker.first else None,
        iterations=int(total),
        skipped_images={f"{worker.rank}.jpg": "unreadable"},
    )


def _add_up(total: torch.Tensor) -> None:
    if dist.is_initialized():
        dist.all_reduce(total)
