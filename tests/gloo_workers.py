"""Processes that have joined each other by gloo, kept for many calls: a start takes seconds."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class GlooWorkers:
    """`size` processes, each a rank of one process group.

    What they call has to be a function of a module, and what it is given and gives back plain.
    """

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        meeting = Path(tempfile.mkdtemp()) / "meeting"
        self._pipes, self._processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            arguments = (rank, size, meeting.as_uri(), theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that ours ends with the process
            self._pipes.append(ours)
            self._processes.append(process)

    def call(self, function: Callable[..., Any], shares: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What `function(*shares[rank])` gives in every process; an exception as its text."""
        for pipe, share in zip(self._pipes, shares, strict=True):
            pipe.send((function, share))
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def _serve(rank: int, size: int, meeting: str, pipe: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send(function(*arguments))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
