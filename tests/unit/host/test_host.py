"""The owner of the host over a kernel in memory: what it makes of a host, what it mends and undoes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import Desired, Host, HostState, TrafficPolicy
from halftunnel_vpn.host.kernel.fake import FakeKernel
from halftunnel_vpn.host.kernel.sysctls import SOURCE_MARK
from halftunnel_vpn.host.kernel.traffic_policy import Opening

STATE = HostState(addresses=("10.72.84.2/32",), dns=None, intercept_dns=False)
POLICY = TrafficPolicy(own_ports=(443,))
PORTAL = replace(POLICY, openings=(Opening(protocol="tcp", ports=(80,)),))
UP, LEGS, OFF = Desired(STATE, POLICY), Desired(None, POLICY), Desired()


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    made = FakeKernel(tmp_path / "kernel")
    made.open_device(STATE.tun)
    return made


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def host(kernel: FakeKernel, state_dir: Path) -> Host:
    return Host(state_dir, kernel=kernel)


def files(state_dir: Path) -> set[str]:
    return {path.name for path in state_dir.iterdir()}


def test_what_is_desired_is_there_and_applying_it_again_changes_nothing(
    host: Host, kernel: FakeKernel
) -> None:
    for desired in (LEGS, UP, LEGS, UP):
        assert host.apply(desired) == []
        assert host.is_applied and host.differences() == []
        tables = len(kernel.tables)
        host.apply(desired)
        assert len(kernel.tables) == tables


def test_a_setting_that_the_kernel_refuses_is_a_warning_and_not_mended_for_ever(
    host: Host, kernel: FakeKernel
) -> None:
    place = kernel.sysctls.root / SOURCE_MARK
    place.unlink()
    place.symlink_to("/proc/sys/kernel/ostype")  # can be read, and not be written: as in a container
    warnings = host.apply(Desired(STATE, None))
    assert (
        [warning for warning in warnings if "src_valid_mark could not be set to 1" in warning]
        == warnings
        != []
    )
    assert host.differences() == [] and host.mend() == []


def test_afterwards_nothing_of_ours_is_left(host: Host, kernel: FakeKernel, state_dir: Path) -> None:
    for desired in (LEGS, UP, OFF):
        host.apply(desired)
    assert kernel.table() is None and kernel.state.is_empty()
    assert kernel.links[STATE.tun].addresses == frozenset()
    assert kernel.sysctls.read(SOURCE_MARK) == "0"
    assert files(state_dir) == set()
    host.apply(OFF)


def test_one_table_follows_another_and_none_of_them_lets_more_pass(host: Host, kernel: FakeKernel) -> None:
    for desired in (LEGS, UP, Desired(replace(STATE, mtu=1400), POLICY), UP, LEGS):
        host.apply(desired)
        assert kernel.table() is not None
    assert all("chain guard_output" in table for table in kernel.tables)


def test_the_policy_names_the_device_while_that_is_there_and_opens_nothing_beside_it() -> None:
    both = Desired(STATE, PORTAL).policy
    assert both is not None and both.tunnel == STATE.tun and both.openings == ()
    alone = Desired(None, replace(PORTAL, tunnel="htvpn0")).policy
    assert alone is not None and alone.tunnel is None and alone.openings


def test_what_is_remembered_is_the_policy_that_holds_without_a_tunnel(host: Host) -> None:
    for desired in (Desired(None, PORTAL), UP):
        host.apply(desired)
        assert host.remembered() == POLICY
    host.apply(Desired(STATE, None))
    assert host.remembered() is None


@pytest.mark.parametrize("desired", [UP, LEGS])
def test_what_somebody_has_changed_is_seen_and_mended(
    host: Host, kernel: FakeKernel, desired: Desired
) -> None:
    host.apply(desired)
    kernel.flush_table()
    assert host.differences() != []
    assert host.mend() != []
    assert host.differences() == [] and host.mend() == []
    for rule in kernel.state.rules():
        kernel.state.remove_rules([rule])
    assert host.mend() != []
    assert host.mend() == []


@pytest.mark.parametrize("refused", ["table", "rule", "route"])
def test_a_first_apply_that_fails_leaves_the_policy_alone(
    host: Host, kernel: FakeKernel, state_dir: Path, refused: str
) -> None:
    host.apply(LEGS)
    before = kernel.table()
    kernel.refuses = refused
    with pytest.raises(HostError, match=f"refused a {refused}"):
        host.apply(Desired(replace(STATE, table=900, rule_priority=900), POLICY))
    kernel.refuses = ""
    assert host.desired == LEGS and host.differences() == []
    assert kernel.table() == before
    assert files(state_dir) == {"protection.json"}


def test_a_tunnel_that_fails_later_stays_as_far_as_it_came(host: Host, kernel: FakeKernel) -> None:
    host.apply(UP)
    kernel.refuses = "table"
    with pytest.raises(HostError):
        host.apply(Desired(STATE, None))
    assert not host.is_applied
    kernel.refuses = ""
    host.apply(Desired(STATE, None))
    assert host.is_applied and host.differences() == []


def test_where_nothing_can_be_written_the_policy_before_is_kept_and_put_back(
    host: Host, kernel: FakeKernel, state_dir: Path
) -> None:
    host.apply(LEGS)
    (state_dir / "protection.json").unlink()
    (state_dir / "protection.json").mkdir()
    for _ in range(2):
        kernel.flush_table()
        with pytest.raises(HostError, match="cannot be written"):
            host.apply(Desired(None, TrafficPolicy(own_ports=(8443,))))
        assert host.desired == LEGS and host.differences() == []


def test_a_tunnel_keeps_its_table_where_its_new_policy_cannot_be_written(
    host: Host, kernel: FakeKernel, state_dir: Path
) -> None:
    host.apply(UP)
    (state_dir / "protection.json").unlink()
    (state_dir / "protection.json").mkdir()
    for _ in range(2):
        kernel.flush_table()
        with pytest.raises(HostError, match="cannot be written"):
            host.apply(Desired(STATE, TrafficPolicy(own_ports=(8443,))))
        assert "8443" in (kernel.table() or "") and host.differences() == []


def test_what_a_killed_process_left_is_undone_and_its_policy_stays(
    host: Host, kernel: FakeKernel, state_dir: Path
) -> None:
    host.apply(UP)
    del kernel.links[STATE.tun]
    after = Host(state_dir, kernel=kernel)
    assert after.recover(after.remembered()) == [STATE.tun]
    assert files(state_dir) == {"protection.json"}
    assert "guard_output" in (kernel.table() or "") and STATE.tun not in (kernel.table() or "")
    after.apply(LEGS)
    assert after.differences() == []
    assert after.recover(None) == []


def test_a_journal_that_cannot_be_read_hinders_no_policy(
    host: Host, kernel: FakeKernel, state_dir: Path
) -> None:
    state_dir.mkdir()
    (state_dir / f"{STATE.tun}.journal.json").write_text("{")
    host.apply(LEGS)
    assert host.differences() == []
    with pytest.raises(HostError, match="cannot be read"):
        host.recover(POLICY)
    host.apply(OFF)
    assert kernel.table() is None


def test_the_setting_from_before_us_outlives_every_change_of_mind(host: Host, kernel: FakeKernel) -> None:
    inbound = replace(POLICY, inbound=True)
    for desired in (
        Desired(None, inbound), Desired(STATE, inbound), Desired(STATE, None), Desired(STATE, inbound),
        Desired(None, inbound), Desired(None, POLICY), UP, OFF,
    ):  # fmt: skip
        host.apply(desired)
        if desired != OFF:
            assert kernel.sysctls.read(SOURCE_MARK) == "1"
    assert kernel.sysctls.read(SOURCE_MARK) == "0"


def test_traces_are_found_whoever_remembers_them(host: Host, state_dir: Path, kernel: FakeKernel) -> None:
    assert not host.has_traces()
    host.apply(LEGS)
    (state_dir / "protection.json").unlink()
    assert host.has_traces()
    Host(state_dir, kernel=kernel).apply(OFF)
    assert not host.has_traces() and kernel.state.is_empty()


def test_the_file_says_what_the_early_boot_reads(host: Host, state_dir: Path) -> None:
    host.apply(UP)
    content = json.loads((state_dir / "protection.json").read_text())
    assert content["format"] == 1 and content["src_valid_mark"] == "0"
    assert content["policy"]["tunnel"] is None
