"""The images: alone, as the pods of configs/kubernetes, and as compose.yaml brings them up.

The services show who may do what, where bytes go, and what holds when a part is gone. `podman play kube`
knows no StatefulSet, no sidecar and no Secret. So a pod is made of the template: volumes that are claimed
become claims, a sidecar becomes a container, and the secret a directory.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

MAX_IMAGE = 120_000_000
"""Bytes of an image."""

NET_ADMIN = 1 << 12

MEGABYTE = 1_000_000


@pytest.mark.parametrize("name", ["exit", "client"])
def test_an_image_is_small_compiled_and_holds_no_shell(engine, name):
    image = f"localhost/halftunnel-{name}"
    found = engine.inspect(image)
    print(f"{image}: {found['Size'] / 1e6:.1f} MB")
    assert found["Size"] < MAX_IMAGE
    assert found["Healthcheck"]["Test"][:3] == ["CMD", "htvpn", "healthcheck"]
    assert found["Config"].get("User", "") == ("65532:65532" if name == "exit" else "")
    run = ("run", "--rm", "--network=none", "--read-only", "--cap-drop=all")
    assert "(compiled)" in engine.podman(*run, image, "--version")
    for program in (
        "/bin/sh",
        "/usr/bin/apt-get",
        "/usr/bin/dpkg",
        "/usr/bin/gcc",
        "/opt/halftunnel/bin/pip",
    ):
        done = engine.run(["podman", *run, "--entrypoint", program, image], check=False)
        assert done.returncode == 127 and "no such file" in done.stdout, done.stdout


# --- pods

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


# --- compose.yaml


def test_containers_may_do_only_what_they_need(site):
    exit_, client = site.status("exit"), site.status("client")
    assert exit_["Uid"].split() == ["65532"] * 4
    assert {exit_[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert {int(client[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {NET_ADMIN}
    assert exit_["NoNewPrivs"] == client["NoNewPrivs"] == "1"
    read_only = site.engine.execute(site.name("exit"), "python3", "-c", "open('/opt/x', 'w')")
    assert read_only.returncode == 1 and "Read-only file system" in read_only.stdout


def test_the_application_has_the_address_of_the_exit_and_the_kill_switch_is_on(site):
    assert site.curl("http://target.example.test/").strip() == site.address("exit", "internet")
    status = site.engine.execute(site.name("client"), "htvpn", "status").stdout
    assert "kill switch on, active, verified" in status


def test_each_network_carries_one_direction(site):
    target = site.address("target", "internet")

    def carried(*words: str) -> tuple[int, int]:
        """Bytes, both ways, that requests take on the networks of A and B."""
        before = [sum(site.bytes_of("client", name)) for name in ("domain-a", "domain-b")]
        codes = site.curl("--fail", "-w", "%{http_code}", *words, timeout=60)
        assert codes and set(codes.split("200")) == {""}
        after = [sum(site.bytes_of("client", name)) for name in ("domain-a", "domain-b")]
        a, b = (later - earlier for earlier, later in zip(before, after, strict=True))
        return a, b

    page = ("-o", "/dev/null", f"http://{target}/megabyte")
    down_a, down_b = carried(*page * 20)
    site.engine.execute(site.name("app"), "dd", "if=/dev/zero", "of=/tmp/upload", "bs=1M", "count=20")
    up_a, up_b = carried("--data-binary", "@/tmp/upload", "-o", "/dev/null", f"http://{target}/upload")
    print(f"download of 20 MB: A {down_a}, B {down_b}; upload of 20 MB: A {up_a}, B {up_b} bytes")
    assert down_b > 20 * MEGABYTE > 20 * down_a
    assert up_a > 20 * MEGABYTE > 20 * up_b


def test_without_the_exit_the_application_reaches_nothing(site):
    target = site.address("target", "internet")
    # A container on the client's network reaches the target: only the kill switch stands between.
    beside = [
        "podman", "run", "--rm", "--network=halftunnel_domain-a", "localhost/halftunnel-lab",
        "curl", "-sS", "--max-time", "10", f"http://{target}/",
    ]  # fmt: skip
    engine = site.engine
    assert engine.run(beside).stdout.strip() != site.address("exit", "internet")

    engine.podman("kill", site.name("exit"))
    try:
        before = site.bytes_of("target", "internet")[0]
        for url in (f"http://{target}/", "http://target.example.test/"):
            assert site.curl(url, timeout=3) == ""
        assert site.bytes_of("target", "internet")[0] - before < 1000  # ARP and neighbour discovery
        assert engine.run(["podman", "healthcheck", "run", site.name("client")], check=False).returncode
    finally:
        engine.podman("start", site.name("exit"))
    site.wait_healthy("exit", "client")
    wait_for_traffic(site)


@pytest.mark.parametrize(
    "services", [("server-upstream",), ("server-downstream",), ("exit",), ("target",), ("client", "app")]
)
def test_traffic_comes_back_after_a_restart(site, services):
    for service in services:  # app has the network of the client, and needs the new one
        site.engine.podman("restart", "--time", "3", site.name(service))
    print(f"restart of {' and '.join(services)}: {wait_for_traffic(site):.1f} s")


def wait_for_traffic(site) -> float:
    """Seconds until the application reaches the target again."""
    began = time.monotonic()
    while site.curl("http://target.example.test/", timeout=3).strip() != site.address("exit", "internet"):
        assert time.monotonic() - began < 60, "no traffic"
    return time.monotonic() - began


def test_both_stop_at_once_and_cleanly(site):
    for service in ("client", "exit"):
        began = time.monotonic()
        site.engine.podman("stop", "--time", "20", site.name(service))
        assert time.monotonic() - began < 15
        assert site.engine.inspect(site.name(service))["State"]["ExitCode"] == 0
