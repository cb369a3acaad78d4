"""`htvpn server certificate`: install a renewed certificate."""

from __future__ import annotations

import ssl
import sys
from argparse import Namespace
from pathlib import Path

from halftunnel_vpn.cli import server_directory
from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.control.text_file import read_text
from halftunnel_vpn.errors import ConfigError

DIRECTIONS = ("upstream", "downstream")


def install(options: Namespace) -> int:
    """Copy a certificate and its key into the exit's directory."""
    certificate, key = Path(options.certificate), Path(options.certificate_key)
    texts = [read_text(path, missing=f"there is no file {path}") for path in (certificate, key)]
    check_pair(certificate, key)
    with server_directory.open_directory(Path(options.dir)) as directory:
        config = server_directory.read_configuration(directory)
        directions = options.direction or DIRECTIONS
        names = [_names(config, direction) for direction in directions]
        for target in dict.fromkeys(names):
            for name, text in zip(target, texts, strict=True):
                directory.replace(name, text)
    for direction in directions:
        pinned = getattr(config.public, direction).ca
        if pinned:
            print(
                f"htvpn: profiles trust the authority in {pinned} alone for {direction} "
                f"([public.{direction}] ca); clients that have it accept no certificate of another one",
                file=sys.stderr,
            )
    print("The certificate is installed; a running exit presents it within some seconds.")
    return 0


def check_pair(certificate: Path, key: Path) -> None:
    """Raise ConfigError unless the files hold a certificate and its key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        why = error.reason or "not PEM files"
        raise ConfigError(
            f"{certificate} and {key} are not a certificate and its key ({why}); name matching files"
        ) from error


def _names(config: ServerConfig, direction: str) -> tuple[str, str]:
    """Return the file names of the certificate and of the key of ``direction`` in the exit's directory."""
    listener: ListenerConfig = getattr(config.listen, direction)
    if not listener.tls:
        raise ConfigError(
            f"[listen.{direction}] has tls = false, so no certificate is used there; give it to the proxy"
        )
    for key, name in (("certificate", listener.certificate), ("certificate_key", listener.certificate_key)):
        if Path(name).name != name:
            raise ConfigError(
                f"[listen.{direction}] {key} = {name} is not a name in the exit's directory; "
                f'write {key} = "{Path(name).name}", and run this again'
            )
    return listener.certificate, listener.certificate_key
