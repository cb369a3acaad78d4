"""One lab that loads its share of the pages through a tunnel: a process of its own."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from lab import namespaces
from lab.audit.sites import Site, as_data, make_site
from lab.audit.traces import append, read
from lab.audit.watch import SILENCE, Watch
from lab.audit.webhost import start_sites
from lab.bench.roads import lengthen
from lab.bench.rows import Line
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, EXIT, Lab
from lab.tunnel import ROAD_PORT, LabTunnel

ATTEMPTS: Final = 3
"""Loads of one page before the run gives up on it."""

DRIVERS: Final = ("fetcher", "browser")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be loaded, and how. ``directory`` takes the traces."""

    directory: Path
    mode: str = "off"
    driver: str = "fetcher"
    seed: int = 1
    sites: int = 25
    loads: int = 32
    open_sites: int = 0
    """Further sites, each loaded once: the open world."""
    domains: int = 1
    delay: float = 0.05
    """Seconds there and back."""
    rate: int = 100_000_000
    """Bits a second, each way."""
    fast: bool = False
    """Whether names get fake addresses and connections are answered at once."""

    silence: float = SILENCE
    """Seconds without traffic after which a load is over."""
    keep_captures: bool = False
    """Whether whole frames are captured, into ``NAME.shardN.road-a.pcap`` and ``NAME.shardN.road-b.pcap``."""

    record: bool = False
    """Whether the client records what leaves and comes, into ``NAME.records-SHARD-NUMBER.jsonl``."""

    @property
    def name(self) -> str:
        """Return the first part of the names of this run's files."""
        domains = f"-{self.domains}domains" if self.domains > 1 else ""
        return f"{self.mode}-{self.driver}{domains}{'-fast' if self.fast else ''}"

    def shares(self, shards: int) -> list[list[tuple[int, int]]]:
        """Return (site, load) pairs for each shard, in an order drawn by the seed."""
        pairs = []
        draw = random.Random(f"order {self.seed}")
        for load in range(self.loads):
            order = list(range(self.sites))
            draw.shuffle(order)
            pairs += [(site, load) for site in order]
        background = [(self.sites + number, 0) for number in range(self.open_sites)]
        for pair in background:
            pairs.insert(draw.randrange(len(pairs) + 1), pair)
        return [pairs[shard::shards] for shard in range(shards)]


class Shard:
    """A share of a plan, in a lab of its own."""

    def __init__(self, plan: Plan, shard: int, shards: int) -> None:
        self.plan = plan
        self.number = shard
        self.file = plan.directory / f"{plan.name}.shard{shard}.jsonl"
        done = set()
        for path in plan.directory.glob(f"{plan.name}.shard*.jsonl"):
            done |= {(trace.site, trace.load) for trace in read(path)}
        self.todo = [pair for pair in plan.shares(shards)[shard] if pair not in done]

    def run(self) -> None:
        """Load what is left to load. Raises HostError."""
        if not self.todo:
            return
        numbers = sorted({site for site, _ in self.todo})
        sites = {number: make_site(self.plan.seed, number) for number in numbers}
        with Lab() as lab:
            lengthen(lab, Line(self.plan.delay, self.plan.rate, int(self.plan.rate / 8 * 0.1)))
            start_sites(lab, list(sites.values()))
            tunnel = start_tunnel(lab, self.plan)
            recording = start_recording(tunnel) if self.plan.record else None
            watch = Watch(lab, self.plan.silence, whole=self.plan.keep_captures)
            watch.start()
            with driver(lab, self.plan.driver) as ask:
                ask(sites[numbers[0]], 0)  # the first load of a process is slower than all others
                for site, load in self.todo:
                    self._load(watch, ask, sites[site], load)
            captures = watch.stop()
            if self.plan.keep_captures:
                for path in captures:
                    shutil.copy(path, self.file.with_suffix(f".{path.name}"))
            status = tunnel.status()
            if status is None:
                raise HostError(f"the tunnel was lost:\n{tunnel.client_output()}")
            self.file.with_suffix(".status.json").write_text(json.dumps(status))
            if recording is not None:
                tunnel.stop_client()  # which writes what it has still to write
                name = f"{self.plan.name}.records-{self.number}"
                number = len(list(self.plan.directory.glob(f"{name}-*.jsonl")))
                shutil.copy(recording, self.plan.directory / f"{name}-{number}.jsonl")

    def _load(self, watch: Watch, ask: Any, site: Site, load: int) -> None:
        problems = []
        for attempt in range(ATTEMPTS):
            if not watch.wait_quiet():
                raise HostError("the paths do not fall silent between two loads")
            watch.forget()
            answer = ask(site, load * ATTEMPTS + attempt)
            if answer["error"] is None:
                trace = watch.trace(site.number, load, self.plan.mode, self.plan.driver, answer)
                append(self.file, trace)
                print(f"{site.number} {load} {answer['seconds']:.2f} s", flush=True)
                return
            problems.append(answer["error"])
        raise HostError(f"site {site.number} does not load: {'; '.join(problems)}")


def start_tunnel(lab: Lab, plan: Plan) -> LabTunnel:
    """Start exit and client in the plan's mode, connected. Raises HostError."""
    profile: dict[str, dict[str, str]] = {}
    server: dict[str, dict[str, str]] = {}
    if plan.mode != "off":
        profile["shaping"] = {"mode": f'"{plan.mode}"'}
        server["shaping"] = {"max": '"strong"'}
    if plan.fast:
        profile["dns"] = {"mode": '"fake-ip"'}
        profile["tcp"] = {"answer_at_once": "true"}
    tunnel = LabTunnel(lab, profile=profile, server=server)
    if plan.domains > 1:
        _add_domains(lab, tunnel, plan.domains)
    tunnel.start()
    return tunnel


def start_recording(tunnel: LabTunnel) -> Path:
    """Have the client record for as long as it may; return the file."""
    said = tunnel.htvpn(CLIENT, "audit", "record", "--for", "24h", "--socket", str(tunnel.socket))
    return Path(shlex.split(said)[-1])


def _add_domains(lab: Lab, tunnel: LabTunnel, domains: int) -> None:
    """Give each direction several URLs, which differ by their port; the exit listens on one for all."""
    ports = ", ".join(str(ROAD_PORT + number) for number in range(1, domains))
    rules = (
        "add table ip domains\n"
        "add chain ip domains incoming { type nat hook prerouting priority -100; }\n"
        f"add rule ip domains incoming tcp dport {{ {ports} }} redirect to :{ROAD_PORT}\n"
    )
    namespaces.command(["ip", "netns", "exec", lab.namespace(EXIT), "nft", "-f", "-"], text=rules)
    text = tunnel.profile.read_text()
    for domain in (DOMAIN_A, DOMAIN_B):
        first = f"wss://{domain}:{ROAD_PORT}"
        start = text.index(first)
        url = text[start : text.index('"', start)]
        urls = [url.replace(first, f"wss://{domain}:{ROAD_PORT + number}") for number in range(domains)]
        text = text.replace(f'"{url}"', ", ".join(f'"{each}"' for each in urls))
    tunnel.profile.write_text(text)


@contextmanager
def driver(lab: Lab, name: str) -> Iterator[Any]:
    """Yield a function that loads a site in the client and returns the answer of the driver."""
    log = (lab.directory / f"{name}.log").open("w")
    process = subprocess.Popen(
        lab.argv(CLIENT, [sys.executable, "-m", f"lab.audit.{name}"]),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=lab.environment(),
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def ask(site: Site, variant: int) -> Mapping[str, Any]:
        requests.write(json.dumps({"site": as_data(site.root), "variant": variant}) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise HostError(f"the {name} ended: {Path(log.name).read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    try:
        yield ask
    finally:
        requests.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        answers.close()
        log.close()
