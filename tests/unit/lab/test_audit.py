"""The instrument of `scripts/audit`, as far as it needs no tunnel and no learner."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from lab.audit import http2, nearest, simulate, traces
from lab.audit.main import main, parser, plans
from lab.audit.shard import Plan
from lab.audit.sites import VARIANTS, as_data, from_data, make_site, variant_size
from lab.audit.traces import Trace
from lab.audit.watch import _packet
from lab.audit.webhost import address_of, write_site

from halftunnel_vpn.audit.pcap import Segment
from halftunnel_vpn.errors import UsageError


def trace(site: int, load: int, packets: list[tuple[int, int, int]]) -> Trace:
    return Trace(site, load, "off", "fetcher", 0.0, 1.0, 0, True, ["A0", "B0"], packets)


def test_a_seed_makes_the_same_sites_and_another_one_makes_others():
    assert as_data(make_site(1, 4).root) == as_data(make_site(1, 4).root)
    assert as_data(make_site(1, 4).root) != as_data(make_site(2, 4).root)
    assert as_data(from_data(as_data(make_site(1, 4).root))) == as_data(make_site(1, 4).root)


def test_the_files_of_a_site_have_its_sizes_and_name_its_resources(tmp_path: Path):
    site = make_site(1, 3)
    write_site(tmp_path, site)
    for resource in site.root.walk():
        for path, size in resource.files():
            file = tmp_path / resource.host / path.lstrip("/")
            content = (file / "index.html" if resource.kind == "html" else file).read_bytes()
            assert len(content) == size
            for child in resource.children:
                name = child.path.replace(".", "-${k}.") if child.kind == "variant" else child.path
                assert f"https://{child.host}{name}" in content.decode()
    advert = next(resource for resource in site.root.walk() if resource.kind == "variant")
    assert len({variant_size(advert.size, which) for which in range(VARIANTS)}) == VARIANTS


def test_a_picture_is_whole_so_that_browsers_load_all_of_it(tmp_path: Path):
    site = make_site(1, 0)
    write_site(tmp_path, site)
    picture = next(resource for resource in site.root.walk() if resource.kind == "image")
    data = (tmp_path / picture.host / picture.path.lstrip("/")).read_bytes()
    at, kinds = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kinds.append(data[at + 4 : at + 8])
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(body),)
        at += 12 + length
    assert kinds == [b"IHDR", b"raNd", b"IDAT", b"IEND"]


def test_names_of_one_page_have_addresses_of_their_own():
    hosts = make_site(1, 2).hosts()
    assert len({address_of(host) for host in hosts}) == len(hosts)


@pytest.mark.parametrize("length", [0, 5, 126, 127, 128, 900, 70000])
def test_strings_of_hpack_are_read_back_by_the_rule_of_the_rfc(length: int):
    raw = http2._text("x" * length)
    value, at = raw[0], 1
    if value == 127:  # RFC 7541 section 5.1: an integer with a prefix of seven bits
        shift = 0
        while True:
            value += (raw[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if not raw[at - 1] & 128:
                break
    assert (value, raw[at:]) == (length, b"x" * length)


def test_every_load_is_in_exactly_one_share_and_the_seed_gives_the_order():
    plan = Plan(Path("unused"), sites=5, loads=4, open_sites=3)
    shares = plan.shares(3)
    pairs = [pair for share in shares for pair in share]
    assert sorted(pairs) == sorted(
        [(site, load) for site in range(5) for load in range(4)] + [(5, 0), (6, 0), (7, 0)]
    )
    assert shares == plan.shares(3)
    assert shares != Plan(Path("unused"), seed=2, sites=5, loads=4, open_sites=3).shares(3)


def test_options_become_runs_and_nothing_to_load_is_refused(capsys: pytest.CaptureFixture[str]):
    options = parser().parse_args("--mode off split --sites 10 --loads 3 --browser 25 --fast".split())
    assert [(plan.name, plan.loads) for plan in plans(options)] == [
        ("off-fetcher-fast", 3), ("split-fetcher-fast", 3),
        ("off-browser-fast", 3), ("split-browser-fast", 3),
    ]  # fmt: skip
    assert main(["--no-fetcher", "--analyse-only"]) == 2
    assert "--browser" in capsys.readouterr().err


def test_traces_survive_an_interruption_in_the_middle_of_a_line(tmp_path: Path):
    whole = trace(1, 0, [(0, 100, 0), (5, -1400, 1)])
    path = tmp_path / "off-fetcher.shard0.jsonl"
    traces.append(path, whole)
    text = path.read_text()
    path.write_text(text + text[: len(text) // 2])
    assert traces.read_all(tmp_path, "off-fetcher") == [whole]


def test_a_run_refuses_a_directory_with_another_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "world.json").write_text('{"seed": 1, "sites": 3}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.geteuid", lambda: 0)
        assert main(["--sites", "4", "--dir", str(tmp_path)]) == 2
    assert "another world" in capsys.readouterr().err


@pytest.mark.parametrize(("letter", "domain"), [("A", 0), ("B", 2)])
def test_the_port_of_the_exit_tells_leg_and_direction(letter: str, domain: int):
    client, exit_ = b"\x0a\0\0\1", b"\x0a\0\0\2"
    up = Segment(1.0, client, 40000, exit_, 8443 + domain, 1, 100, b"")
    down = Segment(1.0, exit_, 8443 + domain, client, 40000, 1, 200, b"")
    assert _packet(up, letter)[1:] == (100, f"{letter}{domain}")
    assert _packet(down, letter)[1:] == (-200, f"{letter}{domain}")


def test_a_simulated_clock_sends_cells_of_one_size_at_its_ticks_and_loses_nothing():
    up, down = simulate.parse("1000@10+100")
    assert down is None
    draw = random.Random(1)
    real = sorted((draw.randrange(500_000), draw.randint(50, 3000), 0) for _ in range(40))
    defended = simulate.defend(trace(0, 0, [*real, (1000, -1400, 1)]), up, down)
    cells = [(at, size) for at, size, _ in defended.packets if size > 0]
    assert {size for _, size in cells} == {1000}
    assert {round((after[0] - before[0]) / 10_000, 2) for before, after in pairwise(cells)} == {1}
    assert sum(size for _, size in cells) >= sum(size for _, size, _ in real)
    assert cells[-1][0] >= real[-1][0] + 90_000
    assert [packet for packet in defended.packets if packet[1] < 0] == [(1000, -1400, 1)]


def test_a_simulated_clock_has_its_pace_and_its_stops_and_makes_later_what_depends_on_it():
    up, down = simulate.parse("/1000@10x0.5<100x2<200+50~400x1.5")
    assert up is None and down == (1000, 0.01, 0.05, ((0.1, 0.5), (0.2, 2.0)), 0.4, 1.5)
    # 30 kB, whose end the next request waits for, and its answer
    real = [(0, -30_000, 1), (100_000, 200, 0), (150_000, -500, 1)]
    defended = simulate.defend(trace(0, 0, real), up, down)
    times = [at for at, size, _ in defended.packets if size < 0]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[:5] == [20_000] * 5 and pauses[6:20] == [5000] * 14 and set(pauses[-5:]) == {10_000}
    assert 590_000 <= times[-1] < 600_000, "what is late is held beyond 0.4 s"
    (request,) = (at for at, size, _ in defended.packets if size > 0)
    late = times[29] - times[0]  # the last of the 30 cells
    assert request == 100_000 + late and defended.seconds >= 1.0 + late / 1e6


@pytest.mark.parametrize("text", ["1400", "a@1", "1@1/2@2/3@3", "1@1x2", "1@1~5"])
def test_what_is_no_clock_is_refused(text: str):
    with pytest.raises(UsageError, match=re.escape(text)):
        simulate.parse(text)


def test_the_nearest_load_is_of_the_same_site_where_sites_differ_in_bytes():
    loads = [
        trace(site, load, [(0, 100 + load, 0), (9, -10_000 * (site + 1), 1)])
        for site in range(3)
        for load in range(3)
    ]
    assert nearest.recognised(loads) == nearest.recognised(loads, "B") == 1.0
    assert nearest.recognised(loads, "A") < 0.5


def _written(file: Path, shares: dict[str, float], seed: int = 1) -> Path:
    observers = {
        name: {"attackers": {"vote": [share, 0.0, 1.0]}, "best": "vote"} for name, share in shares.items()
    }
    world = {"seed": seed, "sites": 25}
    file.write_text(json.dumps({"world": world, "runs": {"off-fetcher": {"observers": observers}}}))
    return file


def test_two_runs_with_one_seed_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = _written(tmp_path / "1", {"all": 0.98, "A": 0.50})
    near = _written(tmp_path / "2", {"all": 0.99, "A": 0.475})
    far = _written(tmp_path / "3", {"all": 0.98, "A": 0.46})
    assert main(["--compare", str(one), str(near)]) == 0
    assert "| off-fetcher | A | 50.0% | 47.5% | -2.5 |" in capsys.readouterr().out
    assert main(["--compare", str(one), str(far)]) == 1


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = _written(tmp_path / "1", {"all": 0.98})
    assert main(["--compare", str(one), str(_written(tmp_path / "2", {}, seed=2))]) == 2
    assert "two worlds" in capsys.readouterr().err
    (tmp_path / "3").write_text("{")
    assert main(["--compare", str(one), str(tmp_path / "3")]) == 2
    assert main(["--compare", str(one), str(tmp_path / "4")]) == 2
    assert "must be files that --json wrote" in capsys.readouterr().err
