"""Certificates of a real ACME server, renewed by certbot's deploy hook while a client transfers data."""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
import signal
import ssl
import sys

import pytest
from lab.processes import Processes, listening

HOST = "a.example.org"


@pytest.fixture
async def processes(tmp_path):
    made = Processes(tmp_path)
    yield made
    await made.end()


@pytest.fixture
async def acme(processes, tmp_path, authorities, free_port):
    """certbot's words to ask a pebble of our own, and the root under which that issues."""
    ports = {name: free_port() for name in ("directory", "management", "http", "tls", "dns")}
    certificate, key = authorities.issue("pebble")
    (tmp_path / "pebble-ca.pem").write_text(authorities.pem("pebble"))
    (tmp_path / "pebble.json").write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"127.0.0.1:{ports['directory']}",
                    "managementListenAddress": f"127.0.0.1:{ports['management']}",
                    "certificate": str(certificate),
                    "privateKey": str(key),
                    "httpPort": ports["http"],
                    "tlsPort": ports["tls"],
                    "ocspResponderURL": "",
                    "externalAccountBindingRequired": False,
                }
            }
        )
    )
    dns = f"127.0.0.1:{ports['dns']}"
    disabled = ("-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "", "-defaultIPv6", "")
    await processes.start("pebble-challtestsrv", "-dns01", dns, *disabled)
    await processes.start(
        "pebble", "-config", tmp_path / "pebble.json", "-dnsserver", dns,
        PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0",
    )  # fmt: skip
    for name in ("dns", "management", "directory"):
        await listening(ports[name])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", ports["management"], ssl=authorities.trusting("pebble")
    )
    writer.write(b"GET /roots/0 HTTP/1.0\r\n\r\n")
    root = (await reader.read()).decode().partition("\r\n\r\n")[2]
    writer.close()

    async def certbot(*words: object) -> str:
        places = [f"--{name}-dir={tmp_path / 'certbot' / name}" for name in ("config", "work", "logs")]
        return await processes.run(
            "certbot", *words, "--non-interactive", *places,
            "--server", f"https://127.0.0.1:{ports['directory']}/dir",
            "--http-01-port", ports["http"], "--http-01-address", "127.0.0.1",
            REQUESTS_CA_BUNDLE=str(tmp_path / "pebble-ca.pem"),
        )  # fmt: skip

    return certbot, root


async def serial(port, root):
    """The serial number of the certificate shown for HOST, which the ACME server's root must vouch for."""
    context = ssl.create_default_context(cadata=root)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return certificate["serialNumber"]


async def test_certbot_renews_certificates_under_a_transfer(
    processes, acme, connect, echo_server, tmp_path, free_port
):
    certbot, root = acme
    upstream, downstream = free_port(), free_port()
    directory = tmp_path / "exit"
    htvpn = (sys.executable, "-m", "halftunnel_vpn.cli", "server")
    await processes.run(
        *htvpn, "init", "--dir", directory, "--allow-egress", "127.0.0.0/8", "--dns", "127.0.0.1",
        "--upstream", f"wss://127.0.0.1:{upstream}", "--listen-upstream", f"127.0.0.1:{upstream}",
        "--downstream", f"wss://127.0.0.1:{downstream}", "--listen-downstream", f"127.0.0.1:{downstream}",
    )  # fmt: skip
    profile = await processes.run(*htvpn, "add-client", "laptop", "--dir", directory)
    exit_ = await processes.start(*htvpn, "run", "--dir", directory)
    for port in (upstream, downstream):
        await listening(port)
    client = await connect(profile)
    user = client.open(echo_server.port)
    await user.heard("opened")
    hook = tmp_path / "deploy"
    hook.write_text(
        "#!/bin/sh\nset -e\n"
        f"{shlex.join(htvpn)} certificate --dir {directory} --direction upstream "
        '--certificate "$RENEWED_LINEAGE/fullchain.pem" --certificate-key "$RENEWED_LINEAGE/privkey.pem"\n'
        f"kill -HUP {exit_.pid}\n"
    )
    hook.chmod(0o755)

    is_over = False
    data = secrets.token_bytes(1_000_000)

    async def transfer() -> int:
        rounds = 0
        while not is_over:
            assert await user.echo(data) == data
            rounds += 1
        return rounds

    transferring = asyncio.ensure_future(transfer())
    with pytest.raises(ssl.SSLCertVerificationError):
        await serial(upstream, root)
    await certbot(
        "certonly", "--standalone", "-d", HOST, "--agree-tos", "--register-unsafely-without-email",
        "--deploy-hook", hook,
    )  # fmt: skip
    seen = set()
    for round_ in range(2):
        if round_:
            await certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
        async with asyncio.timeout(30):
            while len(seen) == round_:
                try:
                    seen.add(await serial(upstream, root))
                except ssl.SSLCertVerificationError:
                    assert not round_
                await asyncio.sleep(0.05)
    assert not transferring.done()
    is_over = True
    assert await transferring > 0
    assert client.losses == 0 and not client.counters.counted["legs-lost-upstream"]
    assert exit_.returncode is None
    exit_.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(exit_.wait(), 60) == 0
