"""Certificates and pages by the name that a client asks for: hosts on one port do not tell of each other."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.transport.certificate_store import CertificateFiles, CertificateStore
from halftunnel_vpn.transport.decoy_site import Site, Sites
from halftunnel_vpn.transport.listen import Listener

UP_HOST, DOWN_HOST = "a.example.org", "b.example.net"


@pytest.fixture
def pairs(make_authority):
    """A certificate of an authority of its own for each of the two hosts."""
    return {host: make_authority(host).issue(host) for host in (UP_HOST, DOWN_HOST)}


@pytest.fixture
def store(pairs):
    return CertificateStore(files(pairs))


def files(pairs):
    return [CertificateFiles(pair.certificate, pair.key) for pair in pairs.values()]


@pytest.fixture
async def port(store):
    listener = Listener(
        {},
        Sites(Site(page=b"plain"), {UP_HOST: Site(page=b"bakery"), DOWN_HOST: Site(page=b"garage")}),
    )
    yield await listener.start("127.0.0.1", 0, tls=store)
    await listener.close()


@pytest.fixture
def visit(port):
    """One request; returns the names in the certificate, the page, and the session of TLS."""

    def once(name, *, host="x", session=None, version=ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        if session is not None:
            context = session[0]
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as sock,
            context.wrap_socket(
                sock, server_hostname=name, session=session and session[1], suppress_ragged_eofs=True
            ) as tls,
        ):
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := tls.recv(65_536):
                answer += piece
            shown = x509.load_der_x509_certificate(tls.getpeercert(True))
            return names(shown), answer.partition(b"\r\n\r\n")[2], (context, tls.session), tls.session_reused

    return lambda *arguments, **options: asyncio.to_thread(once, *arguments, **options)


def names(certificate):
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    issuer = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        *alternative.get_values_for_type(x509.DNSName),
        *(str(one.value) for one in (*common, *issuer)),
    }


async def test_each_host_shows_its_own_certificate_and_page(visit):
    assert (await visit(UP_HOST))[:2] == ({UP_HOST}, b"bakery")
    assert (await visit(DOWN_HOST.upper(), host=UP_HOST))[:2] == ({DOWN_HOST}, b"garage")


@pytest.mark.parametrize("name", [None, "c.example.com", "127.0.0.1", f"x.{UP_HOST}"])
async def test_who_asks_for_neither_host_learns_of_neither(visit, name):
    for host in (UP_HOST, "x"):
        shown, page, *_ = await visit(name, host=host)
        assert (shown, page) == ({"localhost"}, b"plain")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_of_one_host_is_not_resumed_on_the_other(visit, version):
    *_, session, _ = await visit(UP_HOST, version=version)
    shown, _, _, reused = await visit(DOWN_HOST, session=session, version=version)
    assert not reused
    assert shown == {DOWN_HOST}


async def test_reloaded_certificates_are_shown_from_the_next_handshake_on(
    visit, store, pairs, make_authority
):
    fresh = make_authority("fresh").issue(UP_HOST)
    pairs[UP_HOST].certificate.write_bytes(fresh.certificate.read_bytes())
    with pytest.raises(ConfigError, match="belong together"):
        CertificateStore(files(pairs))
    assert (await visit(UP_HOST))[0] == {UP_HOST}, "what could not be read changes nothing"
    pairs[UP_HOST].key.write_bytes(fresh.key.read_bytes())
    store.adopt(CertificateStore(files(pairs)))
    assert (await visit(UP_HOST))[0] == {UP_HOST, "fresh"}


async def test_a_leg_goes_on_while_certificates_are_reloaded(start_exit, authority):
    exit_server = await start_exit()
    leg, _, _, other = await exit_server.pair()
    fresh = authority.issue("localhost", "127.0.0.1")
    exit_server.listener.tls.adopt(fresh.store())
    leg.send(b"still here")
    assert await other.received(1) == [b"still here"]
    await exit_server.pair()


def test_a_certificate_for_addresses_is_shown_without_a_name(authority):
    first, second = authority.issue("192.0.2.1"), authority.issue("192.0.2.2", "c.example.org")
    store = CertificateStore(CertificateFiles(pair.certificate, pair.key) for pair in (first, second))
    contexts = [store._without_name(address) for address in ("192.0.2.1", "192.0.2.2", "10.0.0.7")]
    assert contexts[0] is not contexts[1]
    assert contexts[2] is contexts[0], "behind NAT"


def test_a_wildcard_stands_for_one_label(authority):
    pair = authority.issue("*.example.org")
    (loaded,) = CertificateStore([CertificateFiles(pair.certificate, pair.key)])._loaded
    assert loaded.is_for("a.example.org")
    assert not loaded.is_for("a.b.example.org")
    assert not loaded.is_for("example.org")
