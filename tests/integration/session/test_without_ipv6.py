"""An exit on a kernel that has no IPv6: a seccomp filter refuses its sockets as such a kernel does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import platform
import signal
import socket
import struct
import sys

SOCKET_CALL = {"x86_64": 41, "aarch64": 198}

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
CALL_NUMBER, FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data


def without_ipv6() -> None:
    """In the child: from now on there is no such address family."""
    program = [
        (LOAD_WORD, 0, 0, CALL_NUMBER),
        (JUMP_IF_EQUAL, 0, 3, SOCKET_CALL[platform.machine()]),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), "prctl")


async def test_an_exit_without_ipv6_listens_on_every_ipv4_address_and_says_so(
    tmp_path, connect, echo_server, free_port
):
    ports = [free_port("0.0.0.0"), free_port("0.0.0.0")]
    directory = tmp_path / "exit"
    htvpn = (sys.executable, "-m", "halftunnel_vpn.cli", "server")

    async def run(*words: object) -> str:
        done = await asyncio.create_subprocess_exec(*htvpn, *map(str, words), stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(done.communicate(), 60)
        assert done.returncode == 0
        return output.decode()

    await run(
        "init", "--dir", directory, "--allow-egress", "127.0.0.0/8", "--dns", "127.0.0.1",
        "--upstream", f"wss://127.0.0.1:{ports[0]}", "--downstream", f"wss://127.0.0.1:{ports[1]}",
    )  # fmt: skip
    profile = await run("add-client", "laptop", "--dir", directory)
    exit_ = await asyncio.create_subprocess_exec(
        *htvpn, "run", "--dir", directory, stderr=asyncio.subprocess.PIPE, preexec_fn=without_ipv6
    )
    try:
        assert exit_.stderr is not None
        said = ""
        async with asyncio.timeout(60):
            while "the exit is ready" not in said:
                line = await exit_.stderr.readline()
                assert line, said
                said += line.decode()
        for port in ports:
            assert f"this machine has no IPv6, so :: port {port} listens on 0.0.0.0" in said
        client = await connect(profile)
        user = client.open(echo_server.port)
        assert await user.echo(b"hello") == b"hello"
    finally:
        with contextlib.suppress(ProcessLookupError):
            exit_.send_signal(signal.SIGTERM)
        _, rest = await asyncio.wait_for(exit_.communicate(), 60)
    assert exit_.returncode == 0, rest.decode()
