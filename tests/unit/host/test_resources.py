"""What a container leaves to the exit is less than what the machine has."""

from __future__ import annotations

import os

import pytest

from halftunnel_vpn.host import resources

MIB = 2**20
UNIT = "0::/system.slice/halftunnel-server.service\n"
DOCKER = "12:cpu,cpuacct:/docker/f00\n4:memory:/docker/f00\n0::/\n"


@pytest.fixture
def bounds(tmp_path):
    """The bounds that are found when /proc/self/cgroup says ``names``, and the files are these."""

    def find(names, files):
        (tmp_path / "names").write_text(names)
        for name, text in files.items():
            path = tmp_path / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return sorted(resources.cgroup_bounds(tmp_path / "names", tmp_path / "files"))

    return find


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        (UNIT, {}, []),
        (UNIT, {"system.slice/halftunnel-server.service/memory.max": "max"}, []),
        (UNIT, {"system.slice/halftunnel-server.service/memory.max": 512 * MIB}, [512 * MIB]),
        (UNIT, {"system.slice/halftunnel-server.service/memory.high": 400 * MIB}, [400 * MIB]),
        (UNIT, {"system.slice/memory.max": 900 * MIB, "memory.max": 950 * MIB}, [900 * MIB, 950 * MIB]),
        (UNIT, {"user.slice/memory.max": 1 * MIB}, []),
        # a container with cgroups of its own, and with those of version 1
        ("0::/\n", {"memory.max": 256 * MIB}, [256 * MIB]),
        (DOCKER, {"memory/docker/f00/memory.limit_in_bytes": 256 * MIB}, [256 * MIB]),
        (DOCKER, {"memory/memory.limit_in_bytes": 256 * MIB}, [256 * MIB]),
        (DOCKER, {"cpu,cpuacct/docker/f00/memory.limit_in_bytes": 256 * MIB}, []),
        ("4:memory:/../outside\n", {"memory/memory.limit_in_bytes": 256 * MIB}, [256 * MIB]),
        ("", {"memory.max": 256 * MIB}, []),
    ],
)
def test_bounds_of_cgroups(bounds, names, files, expected):
    assert bounds(names, files) == expected


def test_there_is_no_more_than_the_machine_has():
    assert 0 < resources.memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_tcp_uses_is_told_in_bytes(tmp_path):
    sockstat = tmp_path / "sockstat"
    assert resources.tcp_memory(sockstat) == 0
    sockstat.write_text("sockets: used 9\nTCP: inuse 1 orphan 0 tw 0 alloc 20 mem 118\nUDP: inuse 0 mem 47\n")
    assert resources.tcp_memory(sockstat) == 118 * os.sysconf("SC_PAGE_SIZE")
