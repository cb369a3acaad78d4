"""The other VPNs, from their Debian packages, with the options their documentation names for speed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Final

from lab import namespaces
from lab.bench.peers import (
    DEVICE,
    TARGET_NETWORK,
    TUNNEL_NETWORK,
    Peer,
    first_line,
    wait_until,
)
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, EXIT, EXIT_A, EXIT_B

OPENVPN_PORT: Final = 1194
OCSERV_PORT: Final = 4443
WIREGUARD_PORT: Final = 51820
WIREGUARD_MTU: Final = 1420
"""As wg-quick sets it on a road of 1500."""


def make_certificate(directory: Path, name: str) -> tuple[Path, Path, str]:
    """A self-signed certificate for the exit's addresses and names, its key, its SHA-256 with colons."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    subjects = f"IP:{EXIT_A},IP:{EXIT_B},DNS:{DOMAIN_A},DNS:{DOMAIN_B}"
    namespaces.command(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "30", "-subj", f"/CN={name}", "-addext", f"subjectAltName={subjects}",
            "-keyout", str(key), "-out", str(certificate),
        ]
    )  # fmt: skip
    shown = namespaces.command(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"]
    )
    return certificate, key, shown.strip().partition("=")[2]


class OpenVpnTcp(Peer):
    """OpenVPN over TCP, in user space."""

    id = "openvpn-tcp"
    title = "OpenVPN TCP"
    commands = ("openvpn", "openssl")
    options = (
        "--data-ciphers AES-256-GCM --sndbuf 0 --rcvbuf 0 --txqueuelen 1000 --disable-dco --tcp-nodelay",
    )
    protocol: ClassVar[tuple[str, str]] = ("tcp4-server", "tcp4-client")
    extra: ClassVar[tuple[str, ...]] = ("--tcp-nodelay",)

    @classmethod
    def version(cls) -> str:
        """As it names itself, without its build options."""
        return " ".join(first_line(["openvpn", "--version"]).split()[:2])

    def start_exit(self) -> None:
        """A server with certificates pinned by fingerprint."""
        server = make_certificate(self.directory, "server")
        client = make_certificate(self.directory, "client")
        self._client_identity = [*self._identity(client), "--peer-fingerprint", server[2]]
        argv = [
            "openvpn", "--server", f"{TUNNEL_NETWORK}.0", "255.255.255.0", "--topology", "subnet",
            "--dh", "none", "--local", EXIT_A, "--port", str(OPENVPN_PORT), "--proto", self.protocol[0],
            *self._identity(server), "--peer-fingerprint", client[2], *self._common(),
        ]  # fmt: skip
        self.exit = process = self.lab.start(EXIT, argv)
        wait_until(lambda: "Sequence Completed" in self.lab.output(process), "OpenVPN's server")
        self.open_gateway(DEVICE)

    def start_client(self) -> None:
        """A client that routes the target's network."""
        network = TARGET_NETWORK.partition("/")[0]
        argv = [
            "openvpn", "--client", "--remote", EXIT_A, str(OPENVPN_PORT), "--proto", self.protocol[1],
            "--nobind", "--route", network, "255.255.255.0", *self._client_identity, *self._common(),
        ]  # fmt: skip
        self.client = self.lab.start(CLIENT, argv)

    def _common(self) -> list[str]:
        return [
            "--dev", DEVICE, "--dev-type", "tun", "--data-ciphers", "AES-256-GCM", "--sndbuf", "0",
            "--rcvbuf", "0", "--txqueuelen", "1000", "--disable-dco", *self.extra,
        ]  # fmt: skip

    @staticmethod
    def _identity(made: tuple[Path, Path, str]) -> list[str]:
        return ["--cert", str(made[0]), "--key", str(made[1])]


class OpenVpnUdp(OpenVpnTcp):
    """OpenVPN over UDP, in user space."""

    id = "openvpn-udp"
    title = "OpenVPN UDP"
    options = ("--data-ciphers AES-256-GCM --sndbuf 0 --rcvbuf 0 --txqueuelen 1000 --disable-dco --fast-io",)
    protocol = ("udp4", "udp4")
    extra = ("--fast-io", "--explicit-exit-notify", "1")


_OCSERV: Final = """\
auth = "plain[passwd={directory}/users]"
listen-host = {address}
tcp-port = {port}
{udp}
run-as-user = root
run-as-group = root
socket-file = {directory}/ocserv.sock
server-cert = {certificate}
server-key = {key}
tls-priorities = "NORMAL:%SERVER_PRECEDENCE"
isolate-workers = false
compression = false
max-clients = 4
max-same-clients = 0
keepalive = 300
dpd = 90
try-mtu-discovery = false
use-occtl = false
cisco-client-compat = false
dtls-legacy = false
device = {device}
predictable-ips = true
ipv4-network = {network}.0
ipv4-netmask = 255.255.255.0
route = {route}
"""

_OPENCONNECT_SCRIPT: Final = """\
#!/bin/sh
[ "$reason" = connect ] || exit 0
ip link set dev "$TUNDEV" mtu "$INTERNAL_IP4_MTU" up
ip address add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV"
ip route replace {route} dev "$TUNDEV"
"""


class OpenConnectTls(Peer):
    """openconnect and ocserv over TLS alone."""

    id = "openconnect-tls"
    title = "openconnect TLS"
    commands = ("openconnect", "ocserv", "ocpasswd", "openssl")
    options = ("isolate-workers = false, compression = false, --no-dtls",)
    server_udp: ClassVar[str] = ""
    client_udp: ClassVar[tuple[str, ...]] = ("--no-dtls",)

    @classmethod
    def version(cls) -> str:
        """Both programs."""
        client = first_line(["openconnect", "--version"]).replace("OpenConnect version v", "openconnect ")
        return f"{client}, {first_line(['ocserv', '--version'])}"

    def start_exit(self) -> None:
        """ocserv with one user."""
        directory = self.directory
        self._certificate, key, _ = make_certificate(directory, "server")
        users = str(directory / "users")
        namespaces.command(["ocpasswd", "-c", users, "bench"], text="bench\nbench\n")
        (directory / "password").write_text("bench\n")
        configuration = directory / "ocserv.conf"
        configuration.write_text(
            _OCSERV.format(
                directory=directory,
                address=EXIT_A,
                port=OCSERV_PORT,
                udp=self.server_udp,
                certificate=self._certificate,
                key=key,
                device="vpns",
                network=TUNNEL_NETWORK,
                route=TARGET_NETWORK,
            )
        )
        script = directory / "script"
        script.write_text(_OPENCONNECT_SCRIPT.format(route=TARGET_NETWORK))
        script.chmod(0o755)
        argv = [
            "ocserv",
            "--foreground",
            "--config",
            str(configuration),
            "--pid-file",
            str(directory / "pid"),
        ]
        self.exit = self.lab.start(EXIT, argv)
        self.lab.wait_listening(EXIT, OCSERV_PORT)
        self.open_gateway("vpns*")

    def start_client(self) -> None:
        """openconnect with a script that routes the target's network."""
        argv = [
            "openconnect", "--passwd-on-stdin", "--user", "bench", "--non-inter", "--no-proxy",
            "--cafile", str(self._certificate), "--script", str(self.directory / "script"),
            "--interface", DEVICE, *self.client_udp, f"https://{EXIT_A}:{OCSERV_PORT}",
        ]  # fmt: skip
        redirected = ["sh", "-c", f'exec "$@" <{self.directory}/password', "sh", *argv]
        self.client = self.lab.start(CLIENT, redirected)


class OpenConnectDtls(OpenConnectTls):
    """openconnect and ocserv over DTLS."""

    id = "openconnect-dtls"
    title = "openconnect DTLS"
    options = ("isolate-workers = false, compression = false",)
    server_udp = f"udp-port = {OCSERV_PORT}"
    client_udp = ()

    def connect(self) -> float:
        """The first byte may come over TLS; return when DTLS has taken over, too."""
        seconds = super().connect()
        process = self.client
        assert process is not None
        wait_until(lambda: "Established DTLS connection" in self.lab.output(process), "DTLS")
        return seconds


class WireGuardGo(Peer):
    """wireguard-go, WireGuard in user space."""

    id = "wireguard-go"
    title = "wireguard-go"
    commands = ("wireguard-go", "wg")

    @classmethod
    def version(cls) -> str:
        """As it names itself."""
        return first_line(["wireguard-go", "--version"])

    def start_exit(self) -> None:
        """One end; keys are fresh each time."""
        for host in (CLIENT, EXIT):
            private = namespaces.command(["wg", "genkey"])
            (self.directory / host).write_text(private)
            (self.directory / f"{host}.pub").write_text(namespaces.command(["wg", "pubkey"], text=private))
        name = self._name(EXIT)
        self.exit = self.lab.start(EXIT, ["wireguard-go", "--foreground", name])
        self._configure(EXIT, f"listen-port {WIREGUARD_PORT}", CLIENT, f"allowed-ips {TUNNEL_NETWORK}.2/32")
        self.ip(EXIT, f"address add {TUNNEL_NETWORK}.1/24 dev {name}")
        self.ip(EXIT, f"link set dev {name} mtu {WIREGUARD_MTU} up")
        self.open_gateway(name)

    def start_client(self) -> None:
        """The other end, as wg-quick would set it up."""
        name = self._name(CLIENT)
        self.client = self.lab.start(CLIENT, ["wireguard-go", "--foreground", name])
        self._configure(CLIENT, "", EXIT, f"endpoint {EXIT_A}:{WIREGUARD_PORT} allowed-ips {TARGET_NETWORK}")
        self.ip(CLIENT, f"address add {TUNNEL_NETWORK}.2/24 dev {name}")
        self.ip(CLIENT, f"link set dev {name} mtu {WIREGUARD_MTU} up")
        self.ip(CLIENT, f"route add {TARGET_NETWORK} dev {name}")

    def _name(self, host: str) -> str:
        """Its control sockets are in one directory for all namespaces, so the name must be this run's own."""
        serial = self.lab.namespace(host).split("-")[2]
        return f"wg{host[0]}{os.getpid() % 10**7}x{serial}"

    def _configure(self, host: str, own: str, other: str, peer: str) -> None:
        name = self._name(host)
        socket = Path("/var/run/wireguard", f"{name}.sock")
        wait_until(socket.exists, f"wireguard-go's {socket}")
        public = (self.directory / f"{other}.pub").read_text().strip()
        argv = ["wg", "set", name, "private-key", str(self.directory / host), *own.split()]
        self.lab.run(host, [*argv, "peer", public, *peer.split()])
