"""One training by several processes, one a device, as torchrun or a trial's actor start them.

    torchrun --nproc-per-node 8 -m search.cli train best.yaml

A worker trains its share of every mini-batch and gradients are averaged. What a criterion ranks is
its own worker's share: a ranking loss on 8 devices ranks 8 times an eighth of the batch, unless the
schedule says `gather_logits`.
"""

import atexit
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from paploss.errors import BadConfig

Device = Literal["cpu", "cuda"]

_OF_WORKERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_OF_RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")

OF_TORCHRUN = (
    *(*_OF_WORKERS, *_OF_RENDEZVOUS, "LOCAL_WORLD_SIZE"),
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"),
)
"""The variables that make a process one of several."""

_PATIENCE = timedelta(hours=1)
"""How long workers wait for each other: the first one alone fetches weights and computes metrics.
That one has died is noticed long before, by torchrun or by the trial's actor."""


class PeersLost(Exception):
    """Another worker has left the training, which is what has to be told; this one is all right."""


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        rank: among all, from 0; the first one speaks and writes for all.
        size: how many there are.
        local_rank: among those on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def own(self, name: str) -> str:
        """The name of a file of this worker's: "train.log", and "train-1.log" of the second."""
        if self.first:
            return name
        stem, dot, suffix = name.partition(".")
        return f"{stem}-{self.rank}{dot}{suffix}"


ALONE = Worker()


def this_worker(environment: Mapping[str, str] = os.environ) -> Worker:
    """The worker that torchrun has made this process, or the only one.

    Raises:
        BadConfig: the variables of torchrun are not all there, or do not fit together.
    """
    given = [name for name in _OF_WORKERS if name in environment]
    if not given:
        return ALONE
    missing = [name for name in (*_OF_WORKERS, *_OF_RENDEZVOUS) if name not in environment]
    values = {name: environment[name] for name in given}
    said = ", ".join(f"{name}={value}" for name, value in values.items())
    advice = (
        "Start with torchrun, which sets all of them: torchrun --nproc-per-node 8 -m search.cli "
        "train ...; or unset them to train in one process."
    )
    if missing:
        raise BadConfig(
            f"the environment has {said}, but not {', '.join(missing)}: of a training by several "
            f"processes only a part. {advice}"
        )
    try:
        rank, size, local_rank = (int(values[name]) for name in _OF_WORKERS)
    except ValueError:
        raise BadConfig(f"the environment has {said}; expected whole numbers. {advice}") from None
    if not 0 <= local_rank <= rank < size:
        raise BadConfig(
            f"the environment has {said}; expected LOCAL_RANK <= RANK < WORLD_SIZE. {advice}"
        )
    return Worker(rank, size, local_rank)


def choose_device(asked: str | None, worker: Worker) -> Device:
    """The kind of device that `worker` trains on: `asked` for, or a GPU where torch sees one.

    Raises:
        BadConfig: no such device here, or fewer GPUs than workers.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = asked or ("cuda" if gpus else "cpu")
    if chosen == "cpu":
        return "cpu"
    if chosen != "cuda":
        raise BadConfig(
            f"--device {chosen}: expected cpu or cuda. CUDA_VISIBLE_DEVICES says which GPUs."
        )
    if not gpus:
        raise BadConfig(
            "--device cuda: torch sees no GPU here. Take --device cpu, or see `paploss doctor`."
        )
    if worker.local_rank >= gpus:
        raise BadConfig(
            f"worker {worker.local_rank} of this machine has no GPU: torch sees {gpus}. Start as "
            "many workers as there are GPUs (torchrun --nproc-per-node), or train with "
            "--device cpu."
        )
    return "cuda"


@contextmanager
def joined(worker: Worker, device: Device) -> Iterator[None]:
    """Takes the worker's device and joins the other workers, if there are any, for a while."""
    if device == "cuda":
        # Under torchrun all workers see all GPUs of the machine; a Ray actor sees its own alone.
        torch.cuda.set_device(worker.local_rank % torch.cuda.device_count())
    if worker.size == 1:
        yield
        return
    if device == "cpu":
        _choose_interface(os.environ)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    except BaseException:
        # Without the others NCCL might never come back; the end of the process ends all.
        if device == "cpu":
            _leave_gloo()
        raise
    dist.destroy_process_group() if device == "cuda" else _leave_gloo()


def _leave_gloo() -> None:
    dist.destroy_process_group()
    # Gloo's threads let go of their last tensors in their own time, and take the interpreter for
    # it; where that has ended by then, the process is aborted.
    atexit.register(time.sleep, 1)


@contextmanager
def meeting_point(host: str, workers: int) -> Iterator[dict[str, str]]:
    """A store where workers meet, hosted by this process on a free port, for as long as they train.

    It listens on `host` alone, on a socket that is bound before anybody is told of it: so no other
    process can take the port in between.

    Yields:
        What every worker's environment has to say of it, for torch's `env://`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    try:
        yield {
            "WORLD_SIZE": str(workers),
            "MASTER_ADDR": host,
            "MASTER_PORT": str(port),
            # The first worker joins as the others do, and opens no store of its own.
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
    finally:
        del store


def environments(point: Mapping[str, str], hosts: Sequence[str]) -> list[dict[str, str]]:
    """By rank, torchrun's variables for workers on these hosts that meet at `point`."""
    return [
        {**point, "RANK": str(rank), "LOCAL_RANK": str(hosts[:rank].count(host))}
        for rank, host in enumerate(hosts)
    ]


def is_of_peers(error: BaseException) -> bool:
    """Whether an exception says that another worker is gone, and nothing about this one."""
    # Gloo's errors have no type of their own, but all of them begin with a file of its source.
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


def told_by_all(value: Any) -> list[Any]:
    """What every worker has for `value`, by rank: small, plain data."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _choose_interface(environment: Any) -> None:
    """Have gloo listen where the others are, and there alone.

    It would take the address of the host's name: on many systems one that no other machine reaches.
    """
    if "GLOO_SOCKET_IFNAME" in environment:
        return
    name = interface_to(environment["MASTER_ADDR"])
    if name is not None:
        environment["GLOO_SOCKET_IFNAME"] = name


def interface_to(host: str) -> str | None:
    """The network interface that leads to `host`; None where the system does not tell."""
    try:
        import fcntl
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 1))  # nothing is sent
            address = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                except OSError:  # an interface without an address
                    continue
                if answer[20:24] == address:
                    return name
    except (ImportError, OSError):
        pass
    return None


_SIOCGIFADDR = 0x8915
