"""The files for `ray up`, as far as Ray itself can check them without a cloud."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.local.config import bootstrap_local
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster" / "ray_up").glob("*.yaml"))
CLOUDS = [path for path in FILES if path.stem != "on_premise"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def prepared(path: Path) -> dict[str, Any]:
    """What `ray up` makes of a file before it asks a cloud: Ray's own defaults are in it."""
    config = prepare_config(read(path))
    validate_config(config)
    return config


def start_commands(config: dict[str, Any]) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_there_is_one_for_each_way() -> None:
    assert [path.stem for path in FILES] == ["aws", "gcp", "on_premise"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_the_file(path: Path) -> None:
    config = prepared(path)
    assert config["cluster_name"] == "paploss"
    with pytest.raises(ValidationError):
        validate_config({**config, "max_worker": 3})


def test_the_machines_of_ones_own_are_all_used() -> None:
    config = bootstrap_local(prepared(ROOT / "cluster" / "ray_up" / "on_premise.yaml"))
    (kind,) = config["available_node_types"].values()
    assert kind["max_workers"] == kind["min_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_gpu_machines_come_and_go_with_demand(path: Path) -> None:
    config = prepared(path)
    types = config["available_node_types"]
    head, gpu = types[config["head_node_type"]], types["gpu"]
    assert head["max_workers"] == 0 and head["resources"] == {"CPU": 0, "GPU": 0}
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert gpu["resources"]["GPU"] >= 1
    assert config["idle_timeout_minutes"] > 0


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_nothing_but_what_the_image_has_is_installed(path: Path) -> None:
    """Ray's own defaults would fetch a Ray of another version."""
    config = prepared(path)
    commands = config["head_setup_commands"] + config["worker_setup_commands"]
    assert not [command for command in commands if "ray" in command]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_token_is_there_before_ray_starts(path: Path) -> None:
    config = prepared(path)
    # A folder: Docker would go on showing an old file after a new one is copied over it.
    assert config["file_mounts"] == {"~/.ray": "~/.ray"}
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    starts = start_commands(config)
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start " in command for command in starts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_dashboard_is_for_the_head_alone(path: Path) -> None:
    head, worker = start_commands(prepared(path))
    assert "--head" in head and "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_container_sees_the_shared_folder(path: Path) -> None:
    config = prepared(path)
    assert "--volume /mnt/paploss:/mnt/paploss" in config["docker"]["run_options"]
    assert any("mountpoint -q /mnt/paploss" in c for c in config["initialization_commands"])


def test_ssh_on_aws_is_not_open_to_the_world() -> None:
    """Ray opens port 22 to everybody in the group that it makes where none is given."""
    for kind in prepared(ROOT / "cluster" / "ray_up" / "aws.yaml")["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"]
