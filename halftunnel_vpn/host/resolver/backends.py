"""The host's resolver configuration: one backend class for each program that may manage it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from halftunnel_vpn.host.resolver import resolv_conf_file, resolvconf_program, systemd_resolved
from halftunnel_vpn.host.resolver.resolv_conf_file import RESOLV_CONF

Step = dict[str, Any]
"""What the journal keeps of a backend: enough to restore everything without a running tunnel."""


class ResolverBackend(Protocol):
    """One way to configure the resolvers that the host's programs ask."""

    def step(self) -> Step:
        """Return the data for the journal, before :meth:`apply`. Its ``kind`` identifies the class."""

    def adopt(self) -> None:
        """Take what another program has written since as the host's own configuration."""

    def apply(self, device: str, servers: tuple[str, ...]) -> str | None:
        """Point the host to ``servers``. May be repeated. Return a sentence if that fails."""

    def difference(self, device: str, servers: tuple[str, ...]) -> str | None:
        """Return how the host differs from the result of :meth:`apply`, a sentence; None if it does not."""

    def undo(self, device: str) -> str | None:
        """Restore the original configuration; return a sentence if that fails."""

    def own_servers(self, device: str) -> tuple[str, ...]:
        """Return the resolvers that the host would use without the tunnel."""

    def watched(self) -> Path | None:
        """Return the file in which a takeover shows; None if there is none."""

    def taken_by(self) -> str:
        """Return the name of the program that has taken it over, as part of a sentence."""


class FileBackend:
    """The file /etc/resolv.conf itself."""

    KIND: Final = "file"

    def __init__(self, path: Path, original: bytes | None = None) -> None:
        self._path = path
        self._original = original

    @classmethod
    def from_step(cls, step: Mapping[str, Any], path: Path) -> FileBackend:
        """Create it from the data in the journal."""
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
        """Create it from the data in the journal."""
        return cls(Path(step["path"]), step["record"], tuple(step["servers"]))

    def step(self) -> Step:
        path, record = str(self._path), self._record
        return {"kind": self.KIND, "path": path, "record": record, "servers": list(self._original)}

    def adopt(self) -> None:
        """Do nothing: resolvconf keeps the configuration of the other interfaces itself."""

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
        """Create it. The journal keeps nothing, because systemd-resolved has the original."""
        return cls()

    def step(self) -> Step:
        return {"kind": self.KIND}

    def adopt(self) -> None:
        """Do nothing: systemd-resolved keeps the configuration of the other links itself."""

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
        return None  # the settings of a link are in no file that we may read

    def taken_by(self) -> str:
        return "another program that configured systemd-resolved, or its restart"


_FROM_STEP: Final = {kind.KIND: kind.from_step for kind in (FileBackend, ResolvconfBackend, ResolvedBackend)}


def choose(device: str, path: Path = RESOLV_CONF) -> ResolverBackend:
    """Return the backend of the present manager. Raises HostError if the file cannot be kept."""
    if systemd_resolved.manages(path):
        return ResolvedBackend()
    if resolvconf_program.manages(path):
        own = tuple(resolv_conf_file.servers_in(resolv_conf_file.read(path) or b""))
        return ResolvconfBackend(path, resolvconf_program.record_name(device), own)
    backend = FileBackend(path)
    backend.adopt()
    return backend


def from_step(step: Mapping[str, Any], path: Path = RESOLV_CONF) -> ResolverBackend:
    """Return the backend that the journal names."""
    backend: ResolverBackend = _FROM_STEP[step["kind"]](step, path)
    return backend


def is_orphaned(path: Path) -> bool:
    """Return whether the file was written by an earlier tunnel whose journal is lost."""
    content = resolv_conf_file.read(path)
    return content is not None and content.startswith(resolv_conf_file.MARKER)


def system_servers(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """Return the host's own resolvers. Call it before the tunnel's state is applied."""
    if systemd_resolved.manages(path):
        return systemd_resolved.servers(without="")
    if is_orphaned(path):
        return ()
    found = resolv_conf_file.servers_in(resolv_conf_file.read(path) or b"")
    return tuple(server for server in found if server not in systemd_resolved.STUBS)


def encoded(content: bytes | None) -> str | None:
    """Return bytes as the text that the journal keeps."""
    return None if content is None else base64.b64encode(content).decode("ascii")


def decoded(text: str | None) -> bytes | None:
    """Return the bytes for a text of :func:`encoded`."""
    return None if text is None else base64.b64decode(text)
