"""A Ray cluster of this machine: a head and worker nodes, each by a `ray start` of its own.

Each node is what a machine is to Ray: a raylet with its own address (127.0.1.x), worker pool and
folder, which can be killed. Nothing is shared with other clusters of this machine: ports, folders
and the token are this cluster's own.
"""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_START = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_NETWORK = "127.0.1"  # loopback too; Ray would replace 127.0.0.1 by the machine's outer address
_HEAD = f"{_NETWORK}.1"
_SMALL_STORE = 80_000_000  # bytes; Ray's least is 75 MiB


class Node:
    """One `ray start --block` and all that runs under it, trials too.

    Attributes:
        ip: the node's address, as Ray shows it.
        log: what `ray start` printed.
    """

    def __init__(self, ip: str, folder: Path, arguments: list[str], env: dict[str, str]) -> None:
        self.ip = ip
        self.log = folder / f"{ip}.log"
        self._seen: dict[int, psutil.Process] = {}
        options = [
            f"--node-ip-address={ip}", f"--temp-dir={folder / ip}", "--disable-usage-stats",
            f"--object-store-memory={_SMALL_STORE}", "--num-gpus=0",
            f"--dashboard-agent-listen-port={free_port()}",
        ]  # fmt: skip
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*_START, *options, *arguments], env=env, cwd=folder, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """The node's live processes, the ones that lost their parent too if seen before."""
        with contextlib.suppress(psutil.NoSuchProcess):
            start = psutil.Process(self.process.pid)
            family = [start, *start.children(recursive=True)]
            self._seen.update({process.pid: process for process in family})
        return [process for process in self._seen.values() if _is_alive(process)]

    def kill(self) -> None:
        """SIGKILL to all of the node's processes, as when a machine loses its power."""
        for process in self.processes():  # stopped first: none starts another one meanwhile
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        while alive := self.processes():
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()  # until then it is a zombie
            time.sleep(0.02)


class LocalCluster:
    """A head and worker nodes; a context manager that leaves no process and no file.

    >>> with LocalCluster(workers=2) as cluster:
    ...     subprocess.run([sys.executable, "-m", "search.cli", ...], env=cluster.env)

    Attributes:
        address: of the head, "ip:port", for RAY_ADDRESS.
        jobs_url: of its jobs server, "http://127.0.0.1:port".
        env: for clients and drivers: the environment without foreign RAY_* variables, with this
            cluster's address and token. Drop RAY_ADDRESS where the address is given otherwise.
        head, workers: the nodes that were started.

    Args:
        workers: how many worker nodes to start.
        head_cpus, worker_cpus: what each of them offers.
    """

    def __init__(self, workers: int = 2, *, head_cpus: int = 1, worker_cpus: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pl", dir="/tmp"))  # sockets need short paths
        self.token = secrets.token_hex(32)
        port, jobs = free_port(), free_port()
        self.address, self.jobs_url = f"{_HEAD}:{port}", f"http://127.0.0.1:{jobs}"
        foreign = ("RAY_", "TUNE_")
        self._node_env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
            # Jobs say `python`, as on a machine whose environment is activated.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # A dead node is noticed in a few seconds; a busy one has Ray's own ten to answer.
            "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3",
        }  # fmt: skip
        self.env = self._node_env | {"RAY_ADDRESS": self.address}
        self.workers: list[Node] = []
        self._worker_cpus = worker_cpus
        self.head = Node(_HEAD, self.folder, [
            "--head", f"--port={port}", f"--num-cpus={head_cpus}", "--include-dashboard=true",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={jobs}",
            f"--ray-client-server-port={free_port()}",
        ], self._node_env)  # fmt: skip
        try:
            for _ in range(workers):  # they wait for the head
                self._start_worker(worker_cpus)
            self.wait_for_nodes(1 + workers)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_node(self, num_cpus: int = 1) -> Node:
        """A worker node more, which the cluster knows of when this returns."""
        before = self._count_nodes()
        node = self._start_worker(num_cpus)
        self._wait(lambda: self._count_nodes() > before, node)
        return node

    def wait_for_nodes(self, count: int, seconds: float = 90) -> None:
        """Until Ray counts `count` living nodes, the head among them: more or fewer are awaited."""
        self._wait(lambda: self._count_nodes() == count, self.head, seconds)

    def kill_head(self) -> None:
        """The head's machine is gone; the workers' raylets end by themselves, later."""
        self.head.kill()

    def close(self) -> None:
        """End every process of the cluster and remove its folder."""
        for node in (*self.workers, self.head):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_worker(self, cpus: int) -> Node:
        ip = f"{_NETWORK}.{len(self.workers) + 2}"
        arguments = [f"--address={self.address}", f"--num-cpus={cpus}"]
        self.workers.append(Node(ip, self.folder, arguments, self._node_env))
        return self.workers[-1]

    def _count_nodes(self) -> int:
        """Living nodes, by the head's own account; 0 while it does not answer."""
        request = urllib.request.Request(
            f"{self.jobs_url}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                nodes: list[dict[str, Any]] = json.load(answer)["data"]["summary"]
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return 0
        return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)

    def _wait(self, condition: Callable[[], object], node: Node, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not condition():
            said = node.log.read_text(errors="replace")
            assert node.process.poll() is None, f"the node {node.ip} has ended:\n{said}"
            assert time.monotonic() < end, f"nothing after {seconds} s:\n{said}"
            time.sleep(0.1)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """A test run that is killed leaves no cluster: Linux sends SIGTERM when the parent is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
