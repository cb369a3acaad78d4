"""The lock of the host: one holder, whatever it does, named to everybody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.lock import LOCK, HostBusy, HostLock, Role, holder_of

HOLD = """
import sys, time
from pathlib import Path
from halftunnel_vpn.host.record.lock import HostLock, Role
lock = HostLock(Path(sys.argv[1]), Role.FOREGROUND, socket="/x/s", run_dir=Path(sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.mark.parametrize("first", Role)
@pytest.mark.parametrize("second", Role)
def test_whoever_holds_it_nobody_else_gets_it(
    tmp_path: Path, run_dir: Path, first: Role, second: Role
) -> None:
    state_dir = tmp_path / "state"
    assert holder_of(state_dir, run_dir=run_dir) is None
    with HostLock(state_dir, first, run_dir=run_dir):
        holder = holder_of(state_dir, run_dir=run_dir)
        assert holder is not None and (holder.role, holder.pid) == (first, os.getpid())
        with pytest.raises(HostBusy, match=str(os.getpid())) as refused:
            HostLock(state_dir, second, run_dir=run_dir)
        assert refused.value.holder == holder
    assert holder_of(state_dir, run_dir=run_dir) is None
    HostLock(state_dir, second, run_dir=run_dir).release()


def test_one_network_namespace_has_one_holder_whatever_its_state_directory(
    tmp_path: Path, run_dir: Path
) -> None:
    with HostLock(tmp_path / "one", Role.FOREGROUND, socket="/run/one.sock", run_dir=run_dir):
        with pytest.raises(HostBusy, match=r"run `htvpn down --socket /run/one\.sock` first"):
            HostLock(tmp_path / "other", Role.DAEMON, run_dir=run_dir)
        assert holder_of(tmp_path / "other", run_dir=run_dir) is not None
    HostLock(tmp_path / "other", Role.DAEMON, run_dir=run_dir).release()


def test_one_state_directory_has_one_holder_also_where_nothing_can_be_written_to_run(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing"
    with HostLock(tmp_path, Role.DAEMON, run_dir=nowhere), pytest.raises(HostBusy, match="daemon"):
        HostLock(tmp_path, Role.REPAIR, run_dir=nowhere)


def test_asking_who_holds_it_is_in_nobodys_way(tmp_path: Path, run_dir: Path) -> None:
    with HostLock(tmp_path, Role.DAEMON, run_dir=run_dir):
        pass
    descriptor = os.open(tmp_path / LOCK, os.O_RDONLY)
    try:
        assert holder_of(tmp_path, run_dir=run_dir) is None
        HostLock(tmp_path, Role.DAEMON, run_dir=run_dir).release()
    finally:
        os.close(descriptor)


def test_the_kernel_takes_it_back_from_a_process_that_is_killed(tmp_path: Path, run_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(run_dir)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(HostBusy, match=rf"process {other.pid}\), manages this host"):
            HostLock(tmp_path, Role.REPAIR, run_dir=run_dir)
        other.send_signal(signal.SIGKILL)
    HostLock(tmp_path, Role.REPAIR, run_dir=run_dir).release()


def test_what_is_spoilt_in_the_file_does_not_matter(tmp_path: Path, run_dir: Path) -> None:
    with HostLock(tmp_path, Role.DAEMON, run_dir=run_dir):
        (tmp_path / LOCK).write_bytes(b'{"role": "king"')
        with pytest.raises(HostBusy, match="Another htvpn process is changing this host"):
            HostLock(tmp_path, Role.REPAIR, run_dir=run_dir)


def test_a_state_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"state directory .* cannot be written"):
        HostLock(tmp_path / "file", Role.DAEMON, run_dir=run_dir)
    HostLock(tmp_path / "dir", Role.DAEMON, run_dir=run_dir).release()
