"""Proxies that carry a host's traffic: sing-box, Xray and hysteria; measured where they are on PATH.

Each ends the flows of the host at the client, as Half-Tunnel does, and opens sockets at the exit.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, ClassVar, Final

from lab import namespaces
from lab.bench.peers import DEVICE, TARGET_NETWORK, Peer, first_line, wait_until
from lab.bench.rivals import make_certificate
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, EXIT, EXIT_A, EXIT_B

PROXY_PORT: Final = 4444

TUN_ADDRESS: Final = "172.31.250.1/30"

TUN_MTU: Final = 1500
"""As the target's network has it; a larger one gains nothing where the flow ends at the client."""

PATH: Final = "/bench"

_USER: Final = str(uuid.UUID(int=0x5EED))


class _Proxy(Peer):
    """What the proxies have in common: a file for each end, and a TUN device that leads to the target."""

    where_found = True
    carries_ping = False
    program: ClassVar[str]

    @property
    def environment(self) -> dict[str, str]:
        """Variables of both programs: what they take for authorities, see crypto/x509 of Go."""
        return {"SSL_CERT_FILE": str(self._certificate)}

    def server(self, certificate: Path, key: Path) -> dict[str, Any]:
        """Return the exit's configuration."""
        raise NotImplementedError

    def user(self, certificate: Path) -> dict[str, Any]:
        """Return the client's configuration."""
        raise NotImplementedError

    def argv(self, role: str, configuration: Path) -> list[str]:
        """Return the command for the ``server`` or the ``client``."""
        raise NotImplementedError

    def wait_for_exit(self) -> None:
        """Return when the exit listens."""
        self.lab.wait_listening(EXIT, PROXY_PORT)

    def start_exit(self) -> None:
        """Write both configurations and start the server."""
        self._certificate, key, _ = make_certificate(self.directory, "server")
        for role, content in (
            ("server", self.server(self._certificate, key)),
            ("client", self.user(self._certificate)),
        ):
            (self.directory / f"{role}.json").write_text(json.dumps(content, indent=1))
        argv = self.argv("server", self.directory / "server.json")
        self.exit = self.lab.start(EXIT, argv, env=self.environment)
        self.wait_for_exit()

    def start_client(self) -> None:
        """Start the client, and lead the target's network into its device."""
        argv = self.argv("client", self.directory / "client.json")
        self.client = self.lab.start(CLIENT, argv, env=self.environment)
        wait_until(self._has_device, f"the device of {self.title}")
        self.ip(CLIENT, f"route replace {TARGET_NETWORK} dev {DEVICE}")

    def _has_device(self) -> bool:
        shown = namespaces.command(["ip", "-n", self.lab.namespace(CLIENT), "-o", "link", "show", "up"])
        return f" {DEVICE}: " in shown


class SingBox(_Proxy):
    """sing-box: VLESS over WebSocket and TLS, with its own TUN device."""

    id = "sing-box"
    title = "sing-box"
    commands = ("sing-box", "openssl")
    options = ("TUN, auto_route off, VLESS over WebSocket and TLS",)

    @classmethod
    def version(cls) -> str:
        """As it names itself."""
        return first_line(["sing-box", "version"])

    def argv(self, role: str, configuration: Path) -> list[str]:
        """`sing-box run` for both."""
        return ["sing-box", "run", "--config", str(configuration), "--directory", str(self.directory)]

    def server(self, certificate: Path, key: Path) -> dict[str, Any]:
        """A VLESS inbound."""
        return {
            "log": {"level": "warn"},
            "inbounds": [
                {
                    "type": "vless",
                    "listen": EXIT_A,
                    "listen_port": PROXY_PORT,
                    "users": [{"name": "bench", "uuid": _USER}],
                    "tls": {
                        "enabled": True,
                        "server_name": DOMAIN_A,
                        "certificate_path": str(certificate),
                        "key_path": str(key),
                    },
                    "transport": {"type": "ws", "path": PATH},
                }
            ],
            "outbounds": [{"type": "direct"}],
        }

    def user(self, certificate: Path) -> dict[str, Any]:
        """A TUN inbound and a VLESS outbound."""
        return {
            "log": {"level": "warn"},
            "inbounds": [
                {
                    "type": "tun",
                    "interface_name": DEVICE,
                    "address": [TUN_ADDRESS],
                    "mtu": TUN_MTU,
                    "auto_route": False,
                }
            ],
            "outbounds": [
                {
                    "type": "vless",
                    "server": EXIT_A,
                    "server_port": PROXY_PORT,
                    "uuid": _USER,
                    "packet_encoding": "xudp",
                    "tls": {
                        "enabled": True,
                        "server_name": DOMAIN_A,
                        "certificate_path": str(certificate),
                    },
                    "transport": {"type": "ws", "path": PATH},
                }
            ],
        }


class Xray(_Proxy):
    """Xray: VLESS over XHTTP, whose downloads come over the other path (downloadSettings)."""

    id = "xray"
    title = "Xray, XHTTP split"
    commands = ("xray", "openssl")
    options = ("TUN, VLESS over XHTTP and TLS, downloadSettings to the other domain",)

    @classmethod
    def version(cls) -> str:
        """As it names itself, without its build."""
        return " ".join(first_line(["xray", "version"]).split()[:2])

    def argv(self, role: str, configuration: Path) -> list[str]:
        """`xray run` for both."""
        return ["xray", "run", "-config", str(configuration)]

    def server(self, certificate: Path, key: Path) -> dict[str, Any]:
        """Return one XHTTP inbound for both addresses, since it joins the halves of a connection."""
        return {
            "log": {"loglevel": "warning"},
            "inbounds": [
                {
                    "listen": "0.0.0.0",
                    "port": PROXY_PORT,
                    "protocol": "vless",
                    "settings": {"clients": [{"id": _USER}], "decryption": "none"},
                    "streamSettings": {
                        "network": "xhttp",
                        "security": "tls",
                        "tlsSettings": {
                            "alpn": ["h2"],
                            "certificates": [{"certificateFile": str(certificate), "keyFile": str(key)}],
                        },
                        "xhttpSettings": {"path": PATH},
                    },
                }
            ],
            "outbounds": [{"protocol": "freedom"}],
        }

    def user(self, certificate: Path) -> dict[str, Any]:
        """A TUN inbound and an outbound with two addresses."""
        stream = self._stream(DOMAIN_A)
        download = {"address": EXIT_B, "port": PROXY_PORT, **self._stream(DOMAIN_B)}
        stream["xhttpSettings"]["downloadSettings"] = download
        return {
            "log": {"loglevel": "warning"},
            "inbounds": [
                {
                    "port": 0,
                    "protocol": "tun",
                    "settings": {"name": DEVICE, "mtu": TUN_MTU, "gateway": [TUN_ADDRESS]},
                }
            ],
            "outbounds": [
                {
                    "protocol": "vless",
                    "settings": {
                        "vnext": [
                            {
                                "address": EXIT_A,
                                "port": PROXY_PORT,
                                "users": [{"id": _USER, "encryption": "none"}],
                            }
                        ]
                    },
                    "streamSettings": stream,
                }
            ],
        }

    @staticmethod
    def _stream(domain: str) -> dict[str, Any]:
        return {
            "network": "xhttp",
            "security": "tls",
            "tlsSettings": {"serverName": domain, "alpn": ["h2"]},
            "xhttpSettings": {"path": PATH},
        }


class Hysteria(_Proxy):
    """hysteria, version 2: its own protocol over QUIC, with its own TUN device."""

    id = "hysteria"
    title = "hysteria 2"
    commands = ("hysteria", "openssl")
    options = ("TUN, no bandwidth set, so BBR",)

    @classmethod
    def version(cls) -> str:
        """As it names itself."""
        return " ".join(("hysteria", first_line(["hysteria", "version", "--no-color"], -1)))

    def argv(self, role: str, configuration: Path) -> list[str]:
        """`hysteria server` or `hysteria client`."""
        return ["hysteria", role, "--disable-update-check", "--config", str(configuration)]

    def wait_for_exit(self) -> None:
        """It listens on UDP alone."""
        process = self.exit
        assert process is not None
        wait_until(lambda: "server up and running" in self.lab.output(process), "hysteria's server")

    def server(self, certificate: Path, key: Path) -> dict[str, Any]:
        """A server with one password; JSON is YAML."""
        return {
            "listen": f"{EXIT_A}:{PROXY_PORT}",
            "tls": {"cert": str(certificate), "key": str(key)},
            "auth": {"type": "password", "password": "bench"},
        }

    def user(self, certificate: Path) -> dict[str, Any]:
        """A client with a TUN device; the route is ours to set."""
        return {
            "server": f"{EXIT_A}:{PROXY_PORT}",
            "auth": "bench",
            "tls": {"sni": DOMAIN_A, "ca": str(certificate)},
            "tun": {"name": DEVICE, "mtu": TUN_MTU, "address": {"ipv4": TUN_ADDRESS}},
        }
