"""Devices of other VPNs are found in the files of the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from halftunnel_vpn.client.diagnosis import host_check
from halftunnel_vpn.client.diagnosis.finding import Outcome
from halftunnel_vpn.client.diagnosis.host_check import check_other_vpns, tunnel_devices

UP, DOWN = "0x1003\n", "0x1002\n"
HEADER = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, flags, uevent, is_tun in (
        ("eth0", UP, "INTERFACE=eth0\n", False),
        ("htvpn0", UP, "INTERFACE=htvpn0\n", True),
        ("tun9", UP, "INTERFACE=tun9\n", True),
        ("wg0", UP, "DEVTYPE=wireguard\nINTERFACE=wg0\n", False),
        ("wg1", DOWN, "DEVTYPE=wireguard\nINTERFACE=wg1\n", False),
    ):
        device = tmp_path / "net" / name
        device.mkdir(parents=True)
        (device / "flags").write_text(flags)
        (device / "uevent").write_text(uevent)
        if is_tun:
            (device / "tun_flags").write_text("0x1001\n")
    monkeypatch.setattr(host_check, "ROUTES", tmp_path / "route")
    monkeypatch.setattr(host_check, "NETWORK_DEVICES", tmp_path / "net")
    return tmp_path


def test_devices_that_vpns_use_and_that_are_up(devices: Path) -> None:
    assert tunnel_devices() == ["htvpn0", "tun9", "wg0"]
    finding = check_other_vpns(["htvpn0"])
    assert finding.outcome is Outcome.WARNING and "tun9, wg0 may belong" in finding.text
    assert check_other_vpns(["htvpn0", "tun9", "wg0"]).outcome is Outcome.OK


@pytest.mark.parametrize(("destination", "mask"), [("00000000", "00000000"), ("00000080", "00000080")])
def test_one_that_takes_everything_is_named(devices: Path, destination: str, mask: str) -> None:
    line = f"wg0\t{destination}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n"
    (devices / "route").write_text(HEADER + line)
    assert check_other_vpns(["htvpn0"]).text.startswith("wg0 takes all traffic")


def test_a_host_without_these_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_check, "NETWORK_DEVICES", tmp_path / "none")
    assert tunnel_devices() == []
