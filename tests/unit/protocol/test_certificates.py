"""Certificates that real TLS accepts."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtensionOID

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.certificates import CertifiedKey, make_authority, make_server_certificate

START = datetime.now(UTC) - timedelta(days=1)
END = START + timedelta(days=365)
HOSTS = ["exit.example", "192.0.2.1", "2001:db8::1", "b\u00fccher.example"]


@pytest.fixture(scope="module")
def authority() -> CertifiedKey:
    return make_authority("an authority", not_before=START, not_after=END)


@pytest.fixture(scope="module")
def server(authority: CertifiedKey) -> CertifiedKey:
    return make_server_certificate(authority, HOSTS, not_before=START, not_after=END)


def shake_hands(server: CertifiedKey, pinned: CertifiedKey, host: str, directory: Path) -> None:
    """A whole TLS handshake in memory, by the strictest rules that the ssl module has."""
    file = directory / "server.pem"
    file.write_bytes(server.certificate + server.private_key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    asking = ssl.create_default_context(cadata=pinned.certificate.decode())
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = asking.wrap_bio(to_client, to_server, server_hostname=host)
    server_end = serving.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client_end, server_end]
    for _ in range(6):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting


@pytest.mark.parametrize("host", ["exit.example", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.example"])
def test_tls_accepts_the_server_under_each_of_its_names(
    server: CertifiedKey, authority: CertifiedKey, host: str, tmp_path: Path
) -> None:
    shake_hands(server, authority, host, tmp_path)


def test_tls_refuses_another_name_and_another_authority(
    server: CertifiedKey, authority: CertifiedKey, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, authority, "other.example", tmp_path)
    other = make_authority("an authority", not_before=START, not_after=END)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, other, "exit.example", tmp_path)


def test_tls_refuses_a_certificate_of_yesterday(authority: CertifiedKey, tmp_path: Path) -> None:
    stale = make_server_certificate(
        authority, ["exit.example"], not_before=START, not_after=START + timedelta(hours=1)
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(stale, authority, "exit.example", tmp_path)


def test_a_server_certificate_signs_nothing(server: CertifiedKey, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        child = make_server_certificate(server, ["exit.example"], not_before=START, not_after=END)
        shake_hands(child, server, "exit.example", tmp_path)


def test_names_and_dates_stand_in_the_certificate(server: CertifiedKey) -> None:
    certificate = x509.load_pem_x509_certificate(server.certificate)
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(names, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["exit.example", "xn--bcher-kva.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("192.0.2.1"),
        ipaddress.ip_address("2001:db8::1"),
    ]
    assert certificate.not_valid_after_utc == END.replace(microsecond=0)


def test_mistakes_are_named(authority: CertifiedKey) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        make_server_certificate(authority, [], not_before=START, not_after=END)
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        make_server_certificate(authority, ["a..b"], not_before=START, not_after=END)
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ConfigError, match="ECDSA"):
        make_server_certificate(
            CertifiedKey(authority.certificate, edwards), ["a.example"], not_before=START, not_after=END
        )


def test_a_long_name_is_no_obstacle(authority: CertifiedKey, tmp_path: Path) -> None:
    host = "a" * 60 + ".exit.example"
    server = make_server_certificate(authority, [host], not_before=START, not_after=END)
    shake_hands(server, authority, host, tmp_path)
