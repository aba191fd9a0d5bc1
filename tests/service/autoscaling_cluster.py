"""A Ray cluster that begins with a head without CPUs, and adds machines on demand.

Ray's own autoscaler, over its provider of made-up machines: each is a raylet of this machine.
"""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.service.local_cluster import Node, free_port

_HEAD = "127.0.1.1"


@contextlib.contextmanager
def autoscaling_cluster(most: int, cpus: int = 1) -> Iterator[dict[str, str]]:
    """The environment for a driver on it.

    Args:
        most: machines that it adds, at most; each has `cpus` CPUs.
    """
    folder = Path(tempfile.mkdtemp(prefix="pl", dir="/tmp"))  # sockets need short paths
    port = free_port()
    address = f"{_HEAD}:{port}"
    machine = {"CPU": cpus, "object_store_memory": 80_000_000}
    config = {
        "cluster_name": "made_up", "max_workers": most, "head_node_type": "ray.head.default",
        "provider": {
            "type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True, "launch_multiple": True, "gcs_address": address,
        },
        "available_node_types": {
            # By the provider's own name for it, or it would add a second head.
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "machine": {
                "resources": machine, "node_config": {}, "min_workers": 0, "max_workers": most
            },
        },
        "upscaling_speed": 1.0, "idle_timeout_minutes": 10, "auth": {}, "file_mounts": {},
        "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [], "initialization_commands": [],
        "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }  # fmt: skip
    (folder / "cluster.json").write_text(json.dumps(config))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "RAY_FAKE_CLUSTER": "1",  # allows the provider
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # A busy machine is slow, and not broken.
        "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "600",
        "RAY_health_check_initial_delay_ms": "60000",
        "RAY_health_check_period_ms": "10000",
        "RAY_health_check_timeout_ms": "60000",
        "RAY_metrics_report_interval_ms": "1000",
    }
    options = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
    options += [f"--ray-client-server-port={free_port()}"]
    head = Node(_HEAD, folder, [*options, f"--autoscaling-config={folder / 'cluster.json'}"], env)
    try:
        yield env | {"RAY_ADDRESS": address}
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)
