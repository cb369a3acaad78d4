"""Certificates that ``server init`` makes when none are given: an authority of our own and one server.

The authority is what client profiles pin. Keys are ECDSA on P-256 and come, like the serial
numbers, from the cryptography package's own generator; the dates are arguments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from halftunnel_vpn.errors import ConfigError

MAX_COMMON_NAME = 64
"""Characters of a common name (RFC 5280, upper bound ub-common-name)."""


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A certificate and the private key it speaks of, both PEM (the key PKCS #8, not encrypted)."""

    certificate: bytes
    private_key: bytes


def make_authority(common_name: str, *, not_before: datetime, not_after: datetime) -> CertifiedKey:
    """A self-signed authority that signs servers and no further authorities (RFC 5280).

    ``not_before`` and ``not_after`` carry a time zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name(common_name)
    public = key.public_key()
    certificate = (
        _builder(name, name, public, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _certified_key(certificate, key)


def make_server_certificate(
    authority: CertifiedKey, hosts: Sequence[str], *, not_before: datetime, not_after: datetime
) -> CertifiedKey:
    """A server's certificate for ``hosts``, names and addresses in text, signed by ``authority``.

    Raises ConfigError when ``hosts`` is empty or holds what is neither a name nor an address.
    """
    if not hosts:
        raise ConfigError("a certificate needs at least one host name or address")
    signing_key = serialization.load_pem_private_key(authority.private_key, password=None)
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the authority's key must be an ECDSA key; make a new one with server init")
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_common_name(hosts[0]), issuer.subject, key.public_key(), not_before, not_after)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        )
        .sign(signing_key, hashes.SHA256())
    )
    return _certified_key(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """What both kinds of certificate have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:MAX_COMMON_NAME])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # no address, so it must be a name
    try:
        return x509.DNSName(host.encode("idna").decode("ascii"))
    except UnicodeError:
        raise ConfigError(f"{host!r} is neither a host name nor an address") from None


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certified_key(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> CertifiedKey:
    return CertifiedKey(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
