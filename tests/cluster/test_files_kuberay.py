"""The files for Kubernetes, against the schemas of KubeRay and of Kubernetes itself."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from paploss.strict import override
from search.run.load import load_search

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster" / "kuberay"
KUBERNETES = "1.33"  # the oldest that is still maintained
KUBERAY = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parent / "kuberay_schema.json").read_text())
)


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


RAYJOB, RAYCLUSTER = read("rayjob.yaml"), read("raycluster.yaml")
SPEC = RAYCLUSTER["spec"]


def pods() -> dict[str, dict[str, Any]]:
    """Every pod that the files make, by what it is for."""
    workers = {group["groupName"]: group["template"] for group in SPEC["workerGroupSpecs"]}
    return {
        "head": SPEC["headGroupSpec"]["template"],
        **workers,
        "submitter": RAYJOB["spec"]["submitterPodTemplate"],
        "shell": read("shell.yaml"),
    }


PODS = pods()


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_takes_the_file(name: str) -> None:
    KUBERAY.validate(read(name))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec.authOption", {"mode": "token"}),  # a slip of the pen
        ("spec.authOptions.mode", "Token"),
        ("spec.rayVersion", 2.6),
        ("spec.autoscalerOptions.version", "v3"),
        ("spec.headGroupSpec.rayStartParams", {"num-cpus": 0}),  # has to be a string
        ("spec.workerGroupSpecs", [{"template": {}}]),
        ("metadata.name", "Paploss"),
        ("apiVersion", "ray.io/v1alpha1"),
    ],
)
def test_the_schema_finds_mistakes(key: str, value: Any) -> None:
    broken = override(copy.deepcopy(RAYCLUSTER), {key: value}, "test")
    assert not KUBERAY.is_valid(broken)


@pytest.mark.parametrize("name", ["head", "gpu", "submitter", "shell"])
def test_kubernetes_takes_the_pods(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **PODS[name]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    broken = copy.deepcopy(pod)
    broken["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["storage.yaml", "network.yaml", "shell.yaml"])
def test_kubernetes_takes_the_file(name: str) -> None:
    kubernetes_validate.validate(read(name), KUBERNETES, strict=True)


def test_what_kuberays_operator_checks_besides() -> None:
    """The rules of its validation that concern these files (KubeRay v1.7, utils/validation.go)."""
    assert (
        SPEC["authOptions"]["mode"] == "token" and SPEC["rayVersion"]
    )  # the one asks for the other
    for group in (SPEC["headGroupSpec"], *SPEC["workerGroupSpecs"]):
        # The autoscaler's second version brings pods back itself.
        assert group["template"]["spec"]["restartPolicy"] == "Never"
    for group in SPEC["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # They need a feature gate that is off by default: the file would be refused.
    assert not {"networkPolicy", "tlsOptions", "historyServerOptions"} & SPEC.keys()
    assert RAYJOB["spec"]["shutdownAfterJobFinishes"]  # else the time to live says nothing
    assert RAYJOB["spec"]["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def test_job_and_cluster_have_the_same_cluster() -> None:
    assert RAYJOB["spec"]["rayClusterSpec"] == SPEC


@pytest.mark.parametrize("name", ["head", "gpu", "submitter", "shell"])
def test_pods_have_no_more_rights_and_means_than_they_need(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    if name != "head":  # which asks Kubernetes for workers
        assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", ["head", "gpu"])
def test_rays_pods_share_the_folder_and_have_memory_for_shared_tensors(name: str) -> None:
    spec = PODS[name]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in spec["containers"][0]["volumeMounts"]}
    claim = read("storage.yaml")
    assert mounts["/mnt/paploss"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_a_trial_of_the_search_fills_a_worker() -> None:
    # The data set itself is on the cluster.
    settings, _ = load_search(str(FOLDER / "search.yaml"), {"data": "shapes"})
    limits = PODS["gpu"]["spec"]["containers"][0]["resources"]["limits"]
    assert settings.resources.gpus_per_trial == float(limits["nvidia.com/gpu"])
    assert settings.resources.cpus_per_trial == float(limits["cpu"])
    assert settings.resources.autoscaling  # the workers come on demand
    assert settings.storage.is_relative_to("/mnt/paploss")
    assert read("search.yaml")["data"].startswith("/mnt/paploss/")


def test_the_kustomization_names_what_is_there() -> None:
    kustomization = read("kustomization.yaml")
    for name in kustomization["resources"]:
        assert read(name)["kind"]
    (config_map,) = kustomization["configMapGenerator"]
    assert (FOLDER / config_map["files"][0]).is_file()
    assert kustomization["generatorOptions"]["disableNameSuffixHash"]  # the pods name it as it is
    volumes = PODS["head"]["spec"]["volumes"]
    assert config_map["name"] in [v["configMap"]["name"] for v in volumes if "configMap" in v]
    mounts = PODS["head"]["spec"]["containers"][0]["volumeMounts"]
    (place,) = [mount["mountPath"] for mount in mounts if mount["name"] == "search"]
    assert f" {place}/{config_map['files'][0]} " in RAYJOB["spec"]["entrypoint"]
    assert "--or-resume" in RAYJOB["spec"]["entrypoint"]  # a retry goes on
    (image,) = kustomization["images"]
    used = {pod["spec"]["containers"][0]["image"] for pod in PODS.values()}
    assert used == {f"{image['name']}:{image['newTag']}"}


def test_the_policy_lets_in_ray_the_operator_and_the_namespace() -> None:
    rules = read("network.yaml")["spec"]["ingress"]
    ray = {"ray.io/is-ray-node": "yes"}  # KubeRay's label of all of Ray's pods
    assert rules[0] == {"from": [{"podSelector": {"matchLabels": ray}}]}
    # Jobs, which take the token, and metrics, which take nothing in.
    assert [[port["port"] for port in rule["ports"]] for rule in rules[1:]] == [[8265], [8080]]
    assert all("ipBlock" not in source for rule in rules for source in rule["from"])
