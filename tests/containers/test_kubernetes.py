"""The pods of configs/kubernetes, run by `podman play kube`.

It knows no StatefulSet, no sidecar and no Secret. So a pod is made of the template: volumes that are claimed
become claims, a sidecar becomes a container, and the secret a directory.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

MANIFESTS = Path(__file__).parents[2] / "configs/kubernetes"
NETWORK, EXIT = "htkube", "10.119.0.10"


def stateful_set(name: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((MANIFESTS / name).read_text())
    return next(document for document in documents if document["kind"] == "StatefulSet")


def pod_of(
    found: dict[str, Any], *, settings: dict[str, str], secrets: dict[str, Path]
) -> list[dict[str, Any]]:
    """The claims and the pod that a cluster makes; ``settings`` replace variables of the first container."""
    template = copy.deepcopy(found["spec"]["template"])
    spec = template["spec"]
    spec["containers"] = spec.pop("initContainers", []) + spec["containers"]
    for container in spec["containers"]:
        container.pop("restartPolicy", None)
    variables = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]} | settings
    spec["containers"][0]["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    claims = []
    for claim in found["spec"].get("volumeClaimTemplates", []):
        name = f"{claim['metadata']['name']}-{found['metadata']['name']}-0"
        claims.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": claim["spec"],
            }
        )
        volume = {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": name}}
        spec["volumes"].append(volume)
    for volume in spec["volumes"]:
        if "secret" in volume:
            directory = secrets[volume.pop("secret")["secretName"]]
            volume["hostPath"] = {"path": str(directory), "type": "Directory"}
    metadata = {"name": f"{found['metadata']['name']}-0", "labels": template["metadata"]["labels"]}
    return [*claims, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}]


@pytest.fixture
def play(engine, tmp_path):
    """Plays documents in a network of their own; removes the pods."""
    engine.podman("network", "create", "--subnet", "10.119.0.0/24", NETWORK)
    played = []

    def start(documents: list[dict[str, Any]], *options: str) -> None:
        file = tmp_path / f"{len(played)}.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        played.append(file)
        engine.podman("play", "kube", "--network", NETWORK, *options, str(file))

    yield start
    for file in played:
        engine.podman("play", "kube", "--down", str(file), check=False)
    engine.podman("network", "rm", "--force", "--time", "0", NETWORK, check=False)


def wait_for(engine, container: str, probe: list[str]) -> None:
    """Return when the probe succeeds. podman 4 runs probes by a shell, which these images do not have."""
    deadline = time.monotonic() + 60
    while (done := engine.execute(container, *probe)).returncode:
        assert time.monotonic() < deadline, done.stdout + engine.podman("logs", container, check=False)
        time.sleep(0.2)


def test_the_pods_of_the_manifests_connect(engine, play, tmp_path):
    found = stateful_set("exit.yaml")
    settings = {"HTVPN_INIT_UPSTREAM": f"ws://{EXIT}:8001", "HTVPN_INIT_DOWNSTREAM": f"ws://{EXIT}:8002"}
    play(pod_of(found, settings=settings, secrets={}), "--ip", EXIT)
    exit_ = "halftunnel-exit-0-exit"
    probe = found["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["exec"]["command"]
    wait_for(engine, exit_, probe)

    words = ("htvpn", "server", "add-client", "app", "--dir", "/var/lib/halftunnel-server")
    profile = engine.execute(exit_, *words)
    assert profile.returncode == 0, profile.stdout
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/profile.toml").write_text(profile.stdout)
    (tmp_path / "secret/profile.toml").chmod(0o400)
    secrets = {"halftunnel-profile": tmp_path / "secret"}
    play(pod_of(stateful_set("client.yaml"), settings={}, secrets=secrets))
    wait_for(engine, "halftunnel-client-0-client", ["htvpn", "healthcheck"])
    assert "htvpn0" in engine.execute("halftunnel-client-0-app", "cat", "/proc/net/dev").stdout
