"""The benchmark's arithmetic, tables, JSON and chart; what runs in namespaces is in tests/netns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from dnslib import RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from lab import nameserver
from lab.bench import chart, main, measurements, page_site, report, targets, usage
from lab.bench.everyday import EVERYDAY
from lab.bench.latency import parse_ping, with_lost
from lab.bench.proxies import SingBox
from lab.bench.relay import Pipe
from lab.bench.results import Contestant, Results
from lab.bench.rivals import WireGuardGo
from lab.bench.rows import BY_ID, EVERYDAY_ROWS, LINE_ROWS, ROAD_ROWS, ROWS, Line
from lab.bench.runner import rotated
from lab.bench.summary import beats, best, percentile, ratio, significant, summarise
from lab.bench.traffic import parse_iperf, parse_wrk

from halftunnel_vpn.errors import HostError, UsageError

numbers = st.floats(0, 1e6, allow_nan=False)


@pytest.fixture
def results() -> Results:
    """Three rounds of two rows, with ours ahead in one and behind in the other."""
    made = Results({"machine": "a <fast> one & only"}, {"rounds": "3, 4 s each"})
    for name in ("direct", "ours", "openvpn-tcp", "wireguard-go"):
        made.peers.append(Contestant(name, name.title(), "1.0", ("--fast",) if name == "openvpn-tcp" else ()))
    for number in range(3):
        made.record("direct", {"tcp-1-up": 16.0 + number})
        made.record("ours", {"tcp-1-up": 4.2 + number / 10, "ping-idle": 0.6, "ping-idle-p99": 1.0})
        made.record("openvpn-tcp", {"tcp-1-up": 0.5, "ping-idle": 0.3})
        made.record("wireguard-go", {"tcp-1-up": 3.0 - number / 10, "ping-idle": 0.5})
    made.seconds = 125.0
    return made


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5], 0.5, 5),
        ([3, 1, 2], 0.5, 2),
        ([4, 1, 2, 3], 0.5, 2.5),
        (list(range(101)), 0.99, 99),
        ([1, 2], 1, 2),
        ([1, 2], 0, 1),
    ],
)
def test_a_percentile_lies_between_its_neighbours(values, share, expected):
    assert percentile(values, share) == expected


def test_a_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="of nothing"):
        percentile([], 0.5)


@given(st.lists(numbers, min_size=1, max_size=50))
def test_a_median_is_within_its_extremes_and_halves_the_values(values):
    summary = summarise(values)
    assert summary.low <= summary.median <= summary.high
    assert sum(value <= summary.median for value in values) * 2 >= len(values)
    assert sum(value >= summary.median for value in values) * 2 >= len(values)
    assert summary.rounds == len(values)


def test_the_spread_is_half_the_range_in_terms_of_the_median():
    assert summarise([9, 10, 12]).spread == pytest.approx(0.15)
    assert summarise([0, 0]).spread == 0


def test_the_best_is_the_greatest_or_the_least():
    medians = {"a": 1.0, "b": 3.0, "c": 2.0}
    assert best(medians, "higher") == "b"
    assert best(medians, "lower") == "a"
    assert best({}, "higher") is None


def test_ratios():
    assert ratio(3, 2) == 1.5
    assert ratio(3, 0) is None
    assert beats(3, 2, "higher") and not beats(3, 2, "lower")
    assert beats(2, 2, "higher") and beats(2, 2, "lower")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05123, "0.0512"),
        (0.9996, "1.00"),
        (3.027, "3.03"),
        (9.996, "10.0"),
        (47_712.4, "47,700"),
        (999_600, "1,000,000"),
        (12, "12.0"),
        (-2.5, "-2.50"),
    ],
)
def test_three_significant_digits(value, text):
    assert significant(value, 3) == text


# --- what other programs print --------------------------------------------------------------------


def test_pings_are_read():
    output = (
        "64 bytes from 198.51.100.2: icmp_seq=1 ttl=64 time=0.321 ms\n"
        "64 bytes from 198.51.100.2: icmp_seq=2 ttl=64 time=12 ms\n"
        "\n2 packets transmitted, 2 received, 0% packet loss, time 10ms\n"
        "rtt min/avg/max/mdev = 0.3/6/12/6 ms\n"
    )
    assert parse_ping(output) == [0.321, 12.0]


def test_a_lost_ping_counts_as_a_very_slow_one():
    assert with_lost([1.0, 2.0], 2) == [1.0, 2.0]
    assert with_lost([1.0, 2.0], 3) == [1.0, 2.0, 1000.0]
    with pytest.raises(HostError, match="49 of 100 pings came back"):
        with_lost([1.0] * 49, 100)


def test_wrk_is_read():
    output = "  1000 requests in 1.01s, 1.21MB read\nRequests/sec:    990.10\n"
    assert parse_wrk(output) == 990.10
    few_errors = "  Socket errors: connect 0, read 3, write 0, timeout 7\n"
    assert parse_wrk(few_errors + output) == 990.10


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ("  Socket errors: connect 0, read 3, write 0, timeout 8\n", "11 errors in 1000"),
        ("  Non-2xx or 3xx responses: 500\n", "500 errors in 1000"),
    ],
)
def test_wrk_with_too_many_errors_counts_for_nothing(extra, complaint):
    output = f"  1000 requests in 1.01s, 1.21MB read\n{extra}Requests/sec:    990.10\n"
    with pytest.raises(HostError, match=complaint):
        parse_wrk(output)


@pytest.mark.parametrize("output", ["", "unable to connect", "  0 requests in 1.0s\nRequests/sec: 0.00\n"])
def test_wrk_without_a_request_is_an_error(output):
    with pytest.raises(HostError, match="nothing of requests"):
        parse_wrk(output)


def test_iperf3_is_read():
    received = {"bits_per_second": 1e9, "bytes": 125_000_000, "seconds": 1.0}
    assert parse_iperf(json.dumps({"end": {"sum_received": received}})) == received


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ('{"end": {}, "error": "unable to connect"}', "iperf3 failed: unable to connect"),
        ("killed", "iperf3 failed: killed"),
        ("", "iperf3 failed: no reason given"),
        ('{"end": {"sum_received": {"bytes": null}}}', "iperf3 failed"),
    ],
)
def test_iperf3_that_failed_says_why(output, complaint):
    with pytest.raises(HostError, match=complaint):
        parse_iperf(output)


# --- the long road --------------------------------------------------------------------------------


def test_frames_leave_at_the_rate_and_arrive_after_the_delay():
    pipe = Pipe(delay=0.025, rate=8_000, queue=3_000)  # a second for a frame of 1000 bytes
    pipe.take(bytes(1000), 10.0)
    pipe.take(bytes(500), 10.0)
    pipe.take(bytes(1000), 20.0)
    assert [at for at, _ in pipe.on_the_way] == pytest.approx([11.025, 11.525, 21.025])
    assert pipe.next_arrival() == pytest.approx(11.025)


def test_a_full_queue_drops():
    pipe = Pipe(delay=0.0, rate=8_000, queue=2_000)
    for _ in range(5):
        pipe.take(bytes(1000), 0.0)
    assert len(pipe.on_the_way) == 3, "one under way and two that wait"
    assert pipe.dropped == 2


def test_without_a_rate_there_is_delay_alone():
    pipe = Pipe(delay=1.0, rate=0, queue=0)
    assert pipe.next_arrival() is None
    for _ in range(100):
        pipe.take(bytes(1000), 5.0)
    assert {at for at, _ in pipe.on_the_way} == {6.0}
    assert pipe.dropped == 0


# --- what processes cost --------------------------------------------------------------------------

BURN = """
import sys, time
while time.process_time() < 0.3:
    pass
print('done', flush=True)
sys.stdin.read()
"""


def test_processor_time_and_memory_of_a_tree():
    shell = ["sh", "-c", f'"{sys.executable}" -c "{BURN}"; exit 0']
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        assert parent.stdout.readline() == "done\n"
        processes = usage.tree([parent.pid])
        assert processes[0] == parent.pid
        assert len(processes) == 2
        assert 0.25 <= usage.cpu_seconds([parent.pid]) < 10
        assert usage.resident_bytes([parent.pid]) > 2_000_000, "an interpreter and a shell"
        parent.stdin.close()
    assert usage.resident_bytes([parent.pid]) == 0
    assert usage.cpu_seconds([parent.pid]) == 0


def test_a_program_whose_name_is_not_utf8_is_found_like_any_other(tmp_path):
    """It may be anybody's: every process of the machine is read."""
    program = os.fsencode(tmp_path) + b"/sl\xe9ep"
    os.symlink("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert process.pid in usage.tree([os.getpid()])
        finally:
            process.kill()


OWN_USAGE = """
import os
from lab.bench import usage
sum(range(10**7))
print(usage.tree([os.getpid()]) == [os.getpid()], sum(os.times()[:2]), usage.cpu_seconds([os.getpid()]))
"""


def test_this_process_is_in_its_own_tree():
    # a process of its own: this one may have living children of other tests
    said = subprocess.run([sys.executable, "-c", OWN_USAGE], capture_output=True, text=True, check=True)
    is_alone, own, seen = said.stdout.split()
    assert is_alone == "True"
    assert float(seen) == pytest.approx(float(own), abs=0.5) and float(seen) > 0
    assert usage.resident_bytes([]) == 0


# --- rows and what fills them ---------------------------------------------------------------------


def test_every_row_is_filled_by_exactly_one_measurement():
    filled = [
        row
        for group in (measurements.LOCAL, EVERYDAY, measurements.ROAD, measurements.LINE)
        for each in group
        for row in each.rows
    ]
    assert sorted(filled) == sorted(row.id for row in ROWS)
    assert len(BY_ID) == len(ROWS)


def test_goals_and_headlines_name_rows_that_exist():
    assert {goal.row for goal in targets.GOALS} <= BY_ID.keys()
    assert set(chart.HEADLINES) <= BY_ID.keys()
    assert {goal.against for goal in targets.GOALS} - {""} <= {peer.id for peer in main.PEERS}


def test_measurements_are_chosen_by_name_or_row():
    def names(*patterns: str) -> list[str]:
        return [each.name for each in measurements.matching(measurements.LOCAL, patterns)]

    assert len(names()) == len(measurements.LOCAL)
    assert names("tcp-1-*") == ["tcp-1-up", "tcp-1-down"]
    assert names("cpu-up-client", "http") == ["tcp-1-up", "http"]
    assert names("road-*") == []


def test_the_long_road_is_measured_under_each_congestion_control():
    found = measurements.matching(measurements.ROAD, ["road-1-8-up-*"])
    assert [(each.name, each.congestion) for each in found] == [
        ("road-1-8-up-cubic", "cubic"), ("road-1-8-up-bbr", "bbr"),
    ]  # fmt: skip
    assert "1 % loss, cubic: TCP, 8 flows, up" in BY_ID["road-1-8-up-cubic"].title
    assert {row for each in measurements.ROAD for row in each.rows} == {row.id for row in ROAD_ROWS}


def test_each_ordinary_line_is_measured_with_its_own_rate_delay_and_queue():
    (found,) = measurements.matching(measurements.LINE, ["line-2-60-200-both-bbr"])
    assert found.congestion == "bbr"
    assert found.line == Line(delay=0.06, rate=2_000_000, queue=50_000)
    assert {row for each in measurements.LINE for row in each.rows} == {row.id for row in LINE_ROWS}


def test_pages_names_clones_and_calls_are_measured_on_one_line():
    assert {row for each in EVERYDAY for row in each.rows} == {row.id for row in EVERYDAY_ROWS}
    assert {each.line for each in EVERYDAY} == {Line(delay=0.05, rate=100_000_000, queue=625_000)}
    found = measurements.matching(EVERYDAY, ["page-1-again", "dns-*"])
    assert [each.name for each in found] == ["page-1", "dns"]


def test_a_page_has_60_resources_from_six_names_at_six_addresses():
    resources = list(page_site.make_page(3).root.walk())
    assert len(resources) == 60
    assert len({(each.host, each.path) for each in resources}) == 60
    names = {each.host for each in resources}
    assert names == {page_site.name_of(3, place) for place in range(6)}
    zone = page_site.zone()
    assert len({zone[name][0] for name in names}) == 6
    assert len({records[0] for records in zone.values()}) == len(zone) == 6 * page_site.MAX_PAGES
    assert 1_500_000 < sum(each.size for each in resources) < 2_000_000


def test_more_pages_than_there_are_addresses_are_an_error():
    assert page_site.address_of(page_site.MAX_PAGES - 1, 5) == "198.51.100.249"
    with pytest.raises(HostError, match="ask for fewer rounds"):
        page_site.address_of(page_site.MAX_PAGES, 0)


def test_a_proxy_that_is_not_installed_is_left_out_with_a_line_unless_it_was_named(results, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert main.is_installed(SingBox, results, named=False) is False
    assert results.failures == []
    assert "- left out, sing-box: no sing-box, no openssl on PATH" in report.render(results)
    assert main.is_installed(SingBox, results, named=True) is False
    assert main.is_installed(WireGuardGo, results, named=False) is False
    assert len(results.failures) == 2


def test_pings_are_not_measured_where_the_client_answers_them_itself():
    asked = {each.name for each in (*measurements.LOCAL, *EVERYDAY) if each.needs_ping}
    assert asked == {"ping-idle", "ping-up", "ping-down"}
    assert all(each.needs_ping for each in measurements.LINE)
    assert [peer.id for peer in main.PEERS if not peer.carries_ping] == ["sing-box", "xray", "hysteria"]


def test_a_name_below_a_wildcard_exists_and_has_its_records():
    zone = {"*.new.test": [("A", "192.0.2.7")], "known.new.test": [("A", "192.0.2.8")]}

    def ask(name: str, kind: str = "A") -> tuple[str, list[str]]:
        answer = nameserver.answer(zone, DNSRecord.question(name, kind).pack(), stream=False)
        assert answer is not None
        parsed = DNSRecord.parse(answer)
        return RCODE[parsed.header.rcode], [str(record.rdata) for record in parsed.rr]

    assert ask("n17.new.test") == ("NOERROR", ["192.0.2.7"])
    assert ask("known.new.test") == ("NOERROR", ["192.0.2.8"])
    assert ask("n17.new.test", "AAAA") == ("NOERROR", [])
    assert ask("new.test") == ask("a.b.new.test") == ("NXDOMAIN", [])


def test_peers_are_chosen_by_name():
    shaping = {*main.SHAPED, "ours-3", "ours-split-3"}
    assert main.choose([]) == [peer for peer in main.PEERS if peer.id not in {"ours-compiled", *shaping}]
    assert main.choose([], compiled=True) == [peer for peer in main.PEERS if peer.id not in shaping]
    assert [peer.id for peer in main.choose(["ours-compiled"])] == ["ours-compiled"]
    assert [peer.id for peer in main.choose(["wireguard-go", "ours"])] == ["ours", "wireguard-go"]
    with pytest.raises(UsageError, match=r"no peer is called wg; there are direct, ours"):
        main.choose(["wg"])


def test_peers_take_turns_in_being_first():
    assert [rotated(["a", "b", "c"], by) for by in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip
    assert rotated([], 3) == []


# --- the report -----------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_medians_with_their_spread(results):
    lines = report.render(results).splitlines()
    assert "- machine: a <fast> one & only" in lines
    assert "- Openvpn-Tcp: 1.0 (--fast)" in lines
    assert "- the run took 2 min 5 s" in lines
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    assert cells(lines[first]) == ["", "Direct", "Ours", "Openvpn-Tcp", "Wireguard-Go"]
    assert cells(lines[first + 2]) == [
        "TCP, 1 flow, up, Gbit/s", "17.0 ±6%", "4.30 ±2%", "0.500 ±0%", "2.90 ±3%",
    ]  # fmt: skip
    assert cells(lines[first + 3]) == ["ping idle, median, ms", "-", "0.600 ±0%", "0.300 ±0%", "0.500 ±0%"]
    assert len({len(line) for line in lines[first : first + 5]}) == 1, "aligned"


def test_one_round_has_no_spread(results):
    results.values = {"tcp-1-up": {"ours": [4.0]}}
    assert "±" not in report.render(results)


def test_ours_is_compared_with_the_best_peer_and_never_with_no_tunnel(results):
    text = report.render(results)
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert ["row", "best peer", "ours / best peer", "ahead", "ours / direct"] in lines
    assert ["TCP, 1 flow, up", "Wireguard-Go", "1.48", "yes", "0.253"] in lines
    assert ["ping idle, median", "Openvpn-Tcp", "2.00", "NO", "-"] in lines


def test_a_page_is_judged_by_the_time_without_a_tunnel(results):
    for peer, seconds in (("direct", 0.85), ("ours", 0.9), ("wireguard-go", 1.1)):
        results.record(peer, {"page-0-new": seconds})
    found = {(verdict.title, verdict.wanted): verdict for verdict in targets.verdicts(results)}
    title = BY_ID["page-0-new"].title
    assert found[title, "at most 1 x Direct"].found == "1.06 x"
    assert found[title, "at most 1 x Direct"].reached is False


def test_goals_are_judged(results):
    found = {(verdict.title, verdict.wanted): verdict for verdict in targets.verdicts(results)}
    good = found["TCP, 1 flow, up", "at least 1.4 x Wireguard-Go"]
    assert (good.found, good.reached) == ("1.48 x", True)
    assert found["TCP, 1 flow, up", "at least 6 x Openvpn-Tcp"].reached is True
    bad = found["ping idle, median", "at most 1 x the best peer"]
    assert (bad.found, bad.reached) == ("2.00 x Openvpn-Tcp", False)


def test_the_goals_of_the_compiled_build_stand_apart(results):
    results.peers.append(Contestant("ours-compiled", "Compiled", "1.0"))
    results.record("ours-compiled", {"tcp-1-up": 2.9, "ping-idle": 0.2})
    lines = [cells(line) for line in report.render(results).splitlines() if line.startswith("|")]
    assert ["row", "wanted", "found", "reached", "compiled", "reached"] in lines
    wanted = "at least 1.4 x Wireguard-Go"
    assert ["TCP, 1 flow, up", wanted, "1.48 x", "yes", "1.00 x", "NO"] in lines
    # it is no peer to be compared with
    assert ["ping idle, median", "Openvpn-Tcp", "2.00", "NO", "-", "0.667", "-"] in lines
    assert ["TCP, 1 flow, up", "Wireguard-Go", "1.48", "yes", "0.253", "1.00", "0.171"] in lines


def test_a_limit_needs_no_peer():
    alone = Results({}, {}, [Contestant("ours", "Ours", "1.0")])
    alone.record("ours", {"flow-client": 7.5, "flow-exit": 16.5, "http": 1000})
    found = {verdict.title: (verdict.found, verdict.reached) for verdict in targets.verdicts(alone)}
    assert found == {
        "memory of the client for each open flow": ("7.50 kB", True),
        "memory of the exit for each open flow": ("16.5 kB", False),
        "HTTP, 64 kept-alive connections, 1 kB": ("not measured", None),
    }


def test_a_peer_that_needs_nothing_is_no_divisor():
    made = Results({}, {}, [Contestant("ours", "Ours", "1"), Contestant("wireguard-go", "W", "1")])
    for peer, value in (("ours", 5.0), ("wireguard-go", 0.0)):
        made.record(peer, {"flow-exit": value, "cpu-up-exit": value})
    lines = [cells(line) for line in report.render(made).splitlines() if line.startswith("|")]
    assert ["memory of the exit for each open flow", "W", "-", "NO", "-"] in lines
    assert ["CPU of the exit, TCP up", "at most 1 x the best peer", "not measured", "-"] in lines


def test_what_failed_is_told_in_one_line(results):
    results.fail("Ours", "tcp-8-up, round 2 of 3", "iperf3 failed:\n  gone\n")
    assert report.render(results).endswith(
        "Not measured:\n\n- Ours, tcp-8-up, round 2 of 3: iperf3 failed: / gone\n"
    )


def test_a_row_that_does_not_exist_cannot_be_recorded(results):
    with pytest.raises(KeyError):
        results.record("ours", {"tcp-3-sideways": 1.0})


# --- JSON -----------------------------------------------------------------------------------------


def test_the_json_holds_every_value(results):
    results.fail("Ours", "http, round 1 of 3", "gone")
    document = json.loads(results.as_json())
    assert document["schema"] == 1
    assert document["settings"] == {"rounds": "3, 4 s each"}
    assert document["peers"][2] == {
        "id": "openvpn-tcp", "title": "Openvpn-Tcp", "version": "1.0", "options": ["--fast"],
    }  # fmt: skip
    first = document["rows"][0]
    assert {key: first[key] for key in ("id", "unit", "better")} == {
        "id": "tcp-1-up", "unit": "Gbit/s", "better": "higher",
    }  # fmt: skip
    assert first["peers"]["direct"] == {"median": 17, "low": 16, "high": 18, "values": [16, 17, 18]}
    assert document["failures"] == ["Ours, http, round 1 of 3: gone"]


def test_the_json_gives_the_same_report_again(results):
    results.fail("Ours", "http, round 1 of 3", "gone")
    again = Results.from_json(results.as_json())
    assert report.render(again) == report.render(results)
    assert chart.draw(again) == chart.draw(results)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "peers": [3]}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError):
        Results.from_json(text)


def test_a_report_is_made_again_from_json(results, tmp_path, capsys):
    source, drawing = tmp_path / "results.json", tmp_path / "chart.svg"
    source.write_text(results.as_json())
    assert main.main(["--from-json", str(source), "--svg", str(drawing)]) == 0
    assert capsys.readouterr().out == report.render(results)
    assert ElementTree.parse(drawing).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--from-json", "/absent"], "/absent cannot be read"),
        (["--rows", "nothing"], "no row matches nothing"),
        (["--peers", "nobody"], "no peer is called nobody"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_done(argv, complaint, capsys):
    assert main.main(argv) == 2
    assert complaint in capsys.readouterr().err


# --- the chart ------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def test_the_chart_is_well_formed_and_has_a_bar_for_each_peer(results):
    root = ElementTree.fromstring(chart.draw(results))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "TCP, 1 flow, up" in texts and "ping idle, median" in texts
    assert "ping idle, 99th percentile" not in texts, "no headline"
    assert "Direct" not in texts
    assert any("a <fast> one & only" in (text or "") for text in texts)
    panels = list(root.iter(f"{SVG}g"))
    assert [len(list(panel.iter(f"{SVG}rect"))) for panel in panels] == [3, 3]


def test_a_bar_is_as_long_as_its_value(results):
    panel = next(ElementTree.fromstring(chart.draw(results)).iter(f"{SVG}g"))
    lengths = [float(bar.attrib["width"]) for bar in panel.iter(f"{SVG}rect")]
    assert lengths[0] / lengths[1] == pytest.approx(4.3 / 0.5, rel=0.01)
    assert lengths[0] / lengths[2] == pytest.approx(4.3 / 2.9, rel=0.01)


def test_everything_is_inside_the_picture(results):
    root = ElementTree.fromstring(chart.draw(results))
    width = float(root.attrib["width"])
    for panel in root.iter(f"{SVG}g"):
        left = float(panel.attrib["transform"].removeprefix("translate(").split()[0])
        for bar in panel.iter(f"{SVG}rect"):
            assert left + float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width


@given(st.dictionaries(st.sampled_from(chart.HEADLINES), st.lists(numbers, min_size=1, max_size=3)))
def test_any_values_make_a_chart(values):
    made = Results({"machine": "m"}, {}, [Contestant("ours", "<Ours>", "1.0")])
    for row, rounds in values.items():
        for value in rounds:
            made.record("ours", {row: value})
    root = ElementTree.fromstring(chart.draw(made))
    assert len(list(root.iter(f"{SVG}g"))) == len(values)


def test_the_modes_of_shaping_are_reported_as_ratios_to_ours_without(results):
    assert "Ours with shaping" not in report.render(results)
    results.peers.append(Contestant("ours-split", "Split", "1.0"))
    results.record("ours-split", {"tcp-1-up": 4.3 * 0.97, "ping-idle": 6.6})
    text = report.render(results)
    table = text[text.index("Ours with shaping") :]
    assert "split / off" in table and "0.970" in table and "11.0" in table
    assert "Ours_Split" not in text and "Split / best" not in text, "it is not a rival"


def test_legs_that_are_drawn_are_reported_as_ratios_to_legs_in_turns(results):
    results.peers += [Contestant("ours-3", "Three", "1.0"), Contestant("ours-split-3", "Lots", "1.0")]
    results.record("ours-3", {"tcp-1-up": 4.0})
    assert "lots / turns" not in report.render(results)
    results.record("ours-split-3", {"tcp-1-up": 3.8})
    text = report.render(results)
    assert "lots / turns" in text and "0.950" in text
    assert "Lots / best" not in text, "it is not a rival"


def test_the_option_for_shaping_chooses_modes_and_rows_that_exist():
    options = main.parser().parse_args(["--shaping"])
    assert options.shaping
    assert [peer.id for peer in main.choose(["ours", *main.SHAPED])] == ["ours", *main.SHAPED]
    for pattern in main.SHAPING_ROWS:
        assert [
            *measurements.matching(measurements.LOCAL, [pattern]),
            *measurements.matching(EVERYDAY, [pattern]),
        ]
    assert not set(main.SHAPED) & {peer.id for peer in main.choose([])}, "only when asked"
