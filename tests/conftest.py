"""Tests marked `root` run for real; without root they are skipped, but in CI they fail."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import math
import os
import signal
import socket
import stat
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail; in CI the same examples run every time.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=(HealthCheck.too_slow,),
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("project")

# A shell that starts the tests in the background makes them ignore SIGINT, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests start thousands of processes, and each would compile again every module that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

TESTS = Path(__file__).resolve().parent

# Programs that the tests start find the laboratory, `lab`, as the tests do (pythonpath in pyproject.toml).
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])

DURATIONS = TESTS / "durations.json"
"""Seconds per test file, in each part of `scripts/test`. `scripts/test --record-durations` writes it."""

UNCOUNTED = ("fuzz", "netns", "chaos", "systemd", "containers", "packages", "unit/test_compiled.py")
"""Whose programs run without anybody counting their lines, which halves their speed; others run the same."""


SWEEPING = Path(tempfile.gettempdir(), "halftunnel-sweeping.lock")
"""`Lab.sweep`, and so the demo, removes the labs of every dead process on the machine."""


def _place(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).as_posix() if item.path.is_relative_to(TESTS) else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Around each test: what it starts is counted or not, and it runs at the priority that we were given."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    hidden = {}
    if _place(item).startswith(UNCOUNTED):
        hidden = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("COVERAGE_PROCESS")}
    try:
        return (yield)
    finally:
        os.environ.update(hidden)
        if os.getpriority(os.PRIO_PROCESS, 0) != nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-durations",
        action="store_true",
        help=f"write the seconds per test file to {DURATIONS.name}; run whole parts of scripts/test",
    )
    parser.addoption(
        "--load-seconds",
        type=int,
        default=5,
        metavar="N",
        help="how long test_prometheus.py loads the tunnel in each direction",
    )


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if config.getoption("--record-durations") and not is_worker:
        config.pluginmanager.register(DurationRecorder())


def _part(marks: Container[str]) -> str:
    """Return the part of `scripts/test` that runs a test with these marks, by its `-m`."""
    return "alone" if "alone" in marks else "not alone"


class DurationRecorder:
    """Add up what each test file took, fixtures included, and merge it into DURATIONS."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = (TESTS.parent / report.nodeid.partition("::")[0]).relative_to(TESTS).as_posix()
        part = self._seconds.setdefault(_part(report.keywords), {})
        part[file] = part.get(file, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        recorded = read_durations()
        for part, files in self._seconds.items():
            known = recorded.setdefault(part, {})
            known.update((file, round(seconds, 1)) for file, seconds in files.items())
            recorded[part] = {file: known[file] for file in sorted(known) if (TESTS / file).exists()}
        DURATIONS.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


def read_durations() -> dict[str, dict[str, float]]:
    """Return the recorded seconds: part of `scripts/test` -> file relative to `tests` -> seconds."""
    return json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}


@functools.cache
def _names_alone(file: Path) -> bool:
    return "mark.alone" in file.read_text()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without a test to run alone, where only such tests were asked for."""
    if config.getoption("markexpr") != "alone" or collection_path.suffix != ".py":
        return None
    return not _names_alone(collection_path) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Where files run in parallel, a long one must not start last. Unknown files may be long: they go first.
    recorded = read_durations()

    def seconds(item: pytest.Item) -> float:
        part = _part({mark.name for mark in item.iter_markers()})
        return recorded.get(part, {}).get(_place(item), math.inf)

    for item in items:
        if item.get_closest_marker("alone") and not _names_alone(item.path):
            raise pytest.UsageError(
                f"{item.path}: write pytest.mark.alone here, or nothing collects {item.name}"
            )
    items.sort(key=seconds, reverse=True)
    if os.geteuid() == 0 or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="needs root, /dev/net/tun and network namespaces; run with sudo")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def sweeping() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """``with sweeping()``: in no other test process are labs swept, or looked at that nobody owns."""

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        with SWEEPING.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    return alone


@pytest.fixture(scope="session")
def leftovers_swept() -> None:
    """Remove what a killed run of the tests has left, unless another test process is doing so."""
    from lab import Lab

    with SWEEPING.open("w") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Lab.sweep()


@pytest.fixture
def free_port() -> Iterator[Callable[..., int]]:
    """Gives ports of loopback on which nothing listens; nobody else gets them before the test is over.

    A socket that is bound and does not listen keeps each, at every address, since a server may listen at
    all of them. It refuses connections. A server that sets SO_REUSEADDR can still listen there.
    """
    with contextlib.ExitStack() as held:

        def take(address: str = "127.0.0.1") -> int:
            is_ipv6 = ":" in address
            sock = held.enter_context(socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("::" if is_ipv6 else "0.0.0.0", 0))
            return int(sock.getsockname()[1])

        yield take


@pytest.fixture
def let_others_enter() -> Callable[[Path], None]:
    """Opens a directory of pytest's to other users, and what is above it, up to the directory for all."""

    def open_up(directory: Path) -> None:
        for part in (directory, *directory.parents):
            if part == Path(tempfile.gettempdir()) or part.stat().st_mode & stat.S_ISVTX:
                return
            part.chmod(0o755)

    return open_up


def _problems(value, kind, where="status"):
    """What is wrong with ``value`` as a ``kind`` (a TypedDict or what stands in one)."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.NotRequired, typing.Required):
        return _problems(value, arguments[0], where)
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        hints = typing.get_type_hints(kind, include_extras=True)
        needed = {key for key, hint in hints.items() if typing.get_origin(hint) is not typing.NotRequired}
        found = [f"{where}.{key}: missing" for key in needed - value.keys()]
        found += [f"{where}.{key}: not in the schema" for key in value.keys() - hints.keys()]
        for key in value.keys() & hints.keys():
            found += _problems(value[key], hints[key], f"{where}.{key}")
        return found
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [p for i, item in enumerate(value) for p in _problems(item, arguments[0], f"{where}[{i}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        return [p for key, item in value.items() for p in _problems(item, arguments[1], f"{where}.{key}")]
    if origin in (types.UnionType, typing.Union):
        return [] if any(not _problems(value, member) for member in arguments) else [f"{where}: {value!r}"]
    if kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is int:
        good = type(value) is int
    else:
        good = isinstance(value, kind)
    return [] if good else [f"{where}: {value!r} is no {kind}"]


@pytest.fixture
def status_problems() -> Callable[[object], list[str]]:
    """What is wrong with a status, by the types that docs/CONTROL.md describes."""
    from halftunnel_vpn.control.status_schema import Status

    return lambda value: _problems(value, Status)
