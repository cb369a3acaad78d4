"""What the daemon keeps on disk for its next start, and the last lines of its log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from halftunnel_vpn.daemon import main
from halftunnel_vpn.daemon.log_ring import MAX_LINES, LogRing
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.wanted import Wanted


def test_what_is_wanted_is_remembered(tmp_path: Path) -> None:
    assert Wanted.load(tmp_path) == Wanted(None, up=False)
    for wanted in (Wanted("laptop", up=True), Wanted("laptop", up=False)):
        wanted.save(tmp_path / "state")
        assert Wanted.load(tmp_path / "state") == wanted


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "up": 7}', '{"format": 1, "other": true}']
)
def test_a_spoilt_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "wanted.json").write_text(text)
    with pytest.raises(HostError, match=r"wanted\.json cannot be read .*: remove it and run `htvpn up`"):
        Wanted.load(tmp_path)


async def test_the_last_lines_are_kept_without_what_is_private() -> None:
    ring = LogRing(asyncio.get_running_loop())
    logger = logging.Logger("halftunnel_vpn.somewhere")
    logger.addHandler(ring)
    logger.warning("one\nline", extra={"session": 3, "private": {"destination": "192.0.2.1"}})
    (line,) = await ring.lines(0, 5)
    assert line["message"] == "one?line" and line["fields"] == {"session": 3}
    assert (line["serial"], line["level"], line["logger"]) == (1, "warning", "halftunnel_vpn.somewhere")
    for number in range(2 * MAX_LINES):
        logger.info("%s", number)
    await asyncio.sleep(0)  # they are handed over to the loop
    kept = await ring.lines(0, 0)
    assert len(kept) == MAX_LINES and kept[-1]["serial"] == 2 * MAX_LINES + 1


def test_a_state_directory_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file"))
    assert main.main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("halftunnel: The state directory") and said.count("\n") == 1
