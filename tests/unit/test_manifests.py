"""The manifests for Kubernetes, and compose.yaml: valid by schema, with variables that the program reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from halftunnel_vpn.cli import environment
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.environment_variables import variables
from halftunnel_vpn.config.server import ServerConfig

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "configs/kubernetes").glob("*.yaml"))
VERSIONS = ("1.29", "1.33")


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_is_valid_by_the_schema_of_kubernetes(path, version):
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_each_exit_is_alone_and_nothing_multiplies_it():
    found = [document for path in MANIFESTS for document in documents(path)]
    assert {document["kind"] for document in found} >= {"StatefulSet", "NetworkPolicy", "Service", "Ingress"}
    assert "HorizontalPodAutoscaler" not in {document["kind"] for document in found}
    assert [d["spec"]["replicas"] for d in found if d["kind"] == "StatefulSet"] == [1, 1]
    # Kubernetes makes variables of the names of services, which must not look like ours
    assert [d for d in found if d["kind"] == "Service" and d["metadata"]["name"].startswith("htvpn")] == []


@pytest.mark.parametrize(
    "path", [*MANIFESTS, ROOT / "compose.yaml", ROOT / "Dockerfile"], ids=lambda path: path.name
)
def test_every_variable_is_one_that_the_program_reads(path):
    known = {
        *variables(ClientProfile),
        *variables(ServerConfig),
        environment.PROFILE,
        environment.SERVER_CONFIG,
    }
    options = (*environment.INIT_LISTS, *environment.INIT_VALUES, *environment.INIT_FLAGS)
    known |= {environment.INIT + option.upper() for option in options}
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found = set(re.findall(r"HTVPN_[A-Z0-9_]+", "\n".join(lines)))
    assert found
    assert {name for name in found if name not in known and name.removesuffix("_FILE") not in known} == set()
