"""The host's resolver configuration, by whoever rules it here: one class a kind, chosen by a table."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from halftunnel_vpn.host.resolver import resolv_conf_file, resolvconf_program, systemd_resolved
from halftunnel_vpn.host.resolver.resolv_conf_file import RESOLV_CONF

Step = dict[str, Any]
"""What the journal keeps of a backend: enough to give everything back without a live tunnel."""


class ResolverBackend(Protocol):
    """One way to tell the host's programs which resolvers to ask."""

    def step(self) -> Step:
        """For the journal, before :meth:`apply`; its ``kind`` leads back to the class."""

    def adopt(self) -> None:
        """Take what somebody else has written since as what the host wants without the tunnel."""

    def apply(self, device: str, servers: tuple[str, ...]) -> str | None:
        """Point the host to ``servers``; repeatable; a sentence when that is not possible."""

    def difference(self, device: str, servers: tuple[str, ...]) -> str | None:
        """How the host differs from what :meth:`apply` made, a sentence."""

    def undo(self, device: str) -> str | None:
        """Give everything back; a sentence when that is not possible."""

    def own_servers(self, device: str) -> tuple[str, ...]:
        """The resolvers the host would use without the tunnel."""

    def watched(self) -> Path | None:
        """The file in which a takeover shows, None when there is none to watch."""

    def taken_by(self) -> str:
        """Who has taken it over, in words for a sentence."""


class FileBackend:
    """/etc/resolv.conf itself."""

    KIND: Final = "file"

    def __init__(self, path: Path, original: bytes | None = None) -> None:
        self._path = path
        self._original = original

    @classmethod
    def from_step(cls, step: Mapping[str, Any], path: Path) -> FileBackend:
        """As the journal has it."""
        return cls(Path(step["path"]), decoded(step["original"]))

    def step(self) -> Step:
        return {"kind": self.KIND, "path": str(self._path), "original": encoded(self._original)}

    def adopt(self) -> None:
        content = resolv_conf_file.read(self._path)
        if content is None or not content.startswith(resolv_conf_file.MARKER):
            self._original = content

    def apply(self, device: str, servers: tuple[str, ...]) -> str | None:
        wanted = resolv_conf_file.render(servers, self._original)
        return (
            None
            if resolv_conf_file.read(self._path) == wanted
            else resolv_conf_file.write(self._path, wanted)
        )

    def difference(self, device: str, servers: tuple[str, ...]) -> str | None:
        wanted = resolv_conf_file.render(servers, self._original)
        if resolv_conf_file.read(self._path) == wanted:
            return None
        return f"{self._path} is not as the tunnel wrote it."

    def undo(self, device: str) -> str | None:
        return resolv_conf_file.restore(self._path, self._original)

    def own_servers(self, device: str) -> tuple[str, ...]:
        return tuple(resolv_conf_file.servers_in(self._original or b""))

    def watched(self) -> Path | None:
        return self._path

    def taken_by(self) -> str:
        return resolv_conf_file.writer_of(resolv_conf_file.read(self._path))


class ResolvconfBackend:
    """The program resolvconf."""

    KIND: Final = resolvconf_program.KIND

    def __init__(self, path: Path, record: str, original: tuple[str, ...]) -> None:
        self._path = path
        self._record = record
        self._original = original

    @classmethod
    def from_step(cls, step: Mapping[str, Any], path: Path) -> ResolvconfBackend:
        """As the journal has it."""
        return cls(Path(step["path"]), step["record"], tuple(step["servers"]))

    def step(self) -> Step:
        path, record = str(self._path), self._record
        return {"kind": self.KIND, "path": path, "record": record, "servers": list(self._original)}

    def adopt(self) -> None:
        """resolvconf keeps what the others say by itself."""

    def apply(self, device: str, servers: tuple[str, ...]) -> str | None:
        if resolvconf_program.difference(self._path, servers) is None:
            return None
        problem = resolvconf_program.add(self._record, servers)
        return resolvconf_program.difference(self._path, servers) if problem is None else problem

    def difference(self, device: str, servers: tuple[str, ...]) -> str | None:
        return resolvconf_program.difference(self._path, servers)

    def undo(self, device: str) -> str | None:
        return resolvconf_program.remove(self._record)

    def own_servers(self, device: str) -> tuple[str, ...]:
        return self._original

    def watched(self) -> Path | None:
        return self._path

    def taken_by(self) -> str:
        return resolv_conf_file.writer_of(resolv_conf_file.read(self._path))


class ResolvedBackend:
    """systemd-resolved."""

    KIND: Final = systemd_resolved.KIND

    @classmethod
    def from_step(cls, step: Mapping[str, Any], path: Path) -> ResolvedBackend:
        """There is nothing to keep: resolved knows what was there."""
        return cls()

    def step(self) -> Step:
        return {"kind": self.KIND}

    def adopt(self) -> None:
        """resolved keeps what the other links say by itself."""

    def apply(self, device: str, servers: tuple[str, ...]) -> str | None:
        if systemd_resolved.difference(device, servers) is None:
            return None
        return systemd_resolved.set_link(device, servers)

    def difference(self, device: str, servers: tuple[str, ...]) -> str | None:
        return systemd_resolved.difference(device, servers)

    def undo(self, device: str) -> str | None:
        systemd_resolved.revert_link(device)
        return None

    def own_servers(self, device: str) -> tuple[str, ...]:
        return systemd_resolved.servers(without=device)

    def watched(self) -> Path | None:
        return None  # its settings of a link stand in no file that is ours to know

    def taken_by(self) -> str:
        return "another program that configured systemd-resolved, or its restart"


_FROM_STEP: Final = {kind.KIND: kind.from_step for kind in (FileBackend, ResolvconfBackend, ResolvedBackend)}


def choose(device: str, path: Path = RESOLV_CONF) -> ResolverBackend:
    """Whoever rules this host's resolver configuration now; HostError when the file cannot be kept."""
    if systemd_resolved.rules(path):
        return ResolvedBackend()
    if resolvconf_program.rules(path):
        own = tuple(resolv_conf_file.servers_in(resolv_conf_file.read(path) or b""))
        return ResolvconfBackend(path, resolvconf_program.record_name(device), own)
    backend = FileBackend(path)
    backend.adopt()
    return backend


def from_step(step: Mapping[str, Any], path: Path = RESOLV_CONF) -> ResolverBackend:
    """The backend that the journal tells of."""
    backend: ResolverBackend = _FROM_STEP[step["kind"]](step, path)
    return backend


def is_orphaned(path: Path) -> bool:
    """Whether the file is an earlier tunnel's, with no journal that has its original."""
    content = resolv_conf_file.read(path)
    return content is not None and content.startswith(resolv_conf_file.MARKER)


def system_servers(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The resolvers this host uses by itself; ask before the tunnel's state is applied."""
    if systemd_resolved.rules(path):
        return systemd_resolved.servers(without="")
    if is_orphaned(path):
        return ()
    found = resolv_conf_file.servers_in(resolv_conf_file.read(path) or b"")
    return tuple(server for server in found if server not in systemd_resolved.STUBS)


def encoded(content: bytes | None) -> str | None:
    """Bytes as the journal keeps them."""
    return None if content is None else base64.b64encode(content).decode("ascii")


def decoded(text: str | None) -> bytes | None:
    """The way back from :func:`encoded`."""
    return None if text is None else base64.b64decode(text)
