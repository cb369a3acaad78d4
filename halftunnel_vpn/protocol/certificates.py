"""Certificates that ``server init`` makes when none are given: an authority of our own and one server.

The authority is what client profiles pin. Keys and serial numbers come from the cryptography package's own
generator; the dates and the shape are arguments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from halftunnel_vpn.errors import ConfigError

MAX_COMMON_NAME = 64
"""Characters of a common name (RFC 5280, upper bound ub-common-name)."""


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_KEY_KINDS = ("p256", "p384", "rsa2048")
_AUTHORITY_NAMES = ("{} root", "{} CA", "{}", "Root CA", "Certificate Authority")
_ORGANIZATIONS = ("", "", "Home", "Office", "Internet Widgits Pty Ltd", "Private")


@dataclass(frozen=True, slots=True)
class Shape:
    """Other properties that could link certificates; those of the two paths are drawn independently."""

    key_kind: str = "p256"
    """``p256``, ``p384`` or ``rsa2048``."""
    authority_name: str = "{}"
    """Common name of the authority; ``{}`` stands for the text that the maker gives."""
    organization: str = ""
    """Organization of the authority; empty: none."""
    path_length: int | None = 0
    """How many authorities may follow the authority; None: not stated."""
    critical_usage: bool = True
    """Whether the usage of keys is marked as critical."""
    shows_authority: bool = False
    """Whether the server shows the authority's certificate after its own."""


def draw_shape(choose: Callable[[int], int]) -> Shape:
    """Return a shape at random; ``choose(n)`` returns a number below ``n``."""
    return Shape(
        key_kind=_KEY_KINDS[choose(len(_KEY_KINDS))],
        authority_name=_AUTHORITY_NAMES[choose(len(_AUTHORITY_NAMES))],
        organization=_ORGANIZATIONS[choose(len(_ORGANIZATIONS))],
        path_length=(0, None)[choose(2)],
        critical_usage=bool(choose(2)),
        shows_authority=bool(choose(2)),
    )


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A certificate and the private key it speaks of, both PEM (the key PKCS #8, not encrypted)."""

    certificate: bytes
    private_key: bytes


def make_authority(
    common_name: str, *, not_before: datetime, not_after: datetime, shape: Shape = Shape()
) -> CertifiedKey:
    """Return a self-signed authority that signs servers and no further authorities (RFC 5280).

    ``not_before`` and ``not_after`` carry a time zone.
    """
    key = _make_key(shape)
    name = _name(shape.authority_name.format(common_name), shape.organization)
    public = key.public_key()
    certificate = (
        _builder(name, name, public, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=shape.path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _certified_key(certificate, key)


def make_server_certificate(
    authority: CertifiedKey,
    hosts: Sequence[str],
    *,
    not_before: datetime,
    not_after: datetime,
    shape: Shape = Shape(),
) -> CertifiedKey:
    """Return a server's certificate for ``hosts``, names and addresses in text, signed by ``authority``.

    Raises ConfigError when ``hosts`` is empty or holds what is neither a name nor an address.
    """
    if not hosts:
        raise ConfigError("a certificate needs at least one host name or address")
    signing_key = serialization.load_pem_private_key(authority.private_key, password=None)
    if not isinstance(signing_key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ConfigError("the authority's key must be an ECDSA or RSA key; make a new one with server init")
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    key = _make_key(shape)
    certificate = (
        _builder(_name(hosts[0]), issuer.subject, key.public_key(), not_before, not_after)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=shape.critical_usage)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        )
        .sign(signing_key, hashes.SHA256())
    )
    made = _certified_key(certificate, key)
    if shape.shows_authority:
        return CertifiedKey(made.certificate + authority.certificate, made.private_key)
    return made


def make_self_signed(
    host: str, *, not_before: datetime, not_after: datetime, shape: Shape = Shape()
) -> CertifiedKey:
    """Return a self-signed server certificate, as the installers of web servers make it."""
    key = _make_key(shape)
    name = _name(host)
    certificate = (
        _builder(name, name, key.public_key(), not_before, not_after)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _certified_key(certificate, key)


def names_in(pem: bytes) -> tuple[list[str], list[str]]:
    """Return host names, in lower case, and IP addresses that the first certificate of a chain is for.

    Without alternative names its common name counts. Raises ValueError for text that holds no certificate.
    """
    certificate = x509.load_pem_x509_certificates(pem)[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [str(attribute.value).lower() for attribute in common], []
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [name.lower() for name in names], [str(address) for address in addresses]


def fingerprint_of(pem: bytes) -> bytes:
    """Return the SHA-256 of the first certificate of a chain, as profiles pin it. Raises ValueError."""
    return x509.load_pem_x509_certificates(pem)[0].fingerprint(hashes.SHA256())


def expiry_of(pem: bytes) -> float:
    """Return when the first certificate of a chain expires, in seconds since 1970. Raises ValueError."""
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.not_valid_after_utc.timestamp()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """Return what both kinds of certificate have in common."""
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


def _make_key(shape: Shape) -> PrivateKey:
    if shape.key_kind == "rsa2048":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if shape.key_kind == "p384" else ec.SECP256R1())


def _name(common_name: str, organization: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:MAX_COMMON_NAME])]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


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


def _certified_key(certificate: x509.Certificate, key: PrivateKey) -> CertifiedKey:
    return CertifiedKey(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
