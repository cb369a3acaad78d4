"""What the operator's page refuses, each with a sentence and counted: requests that no page of ours sends."""

from __future__ import annotations

import socket

import pytest

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@pytest.fixture(scope="module")
def session(web_exit) -> dict[str, str]:
    return web_exit.logged_in()


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "reason"),
    [
        ("GET", "/", {"Host": "evil.example"}, 403, "web-wrong-host"),
        ("GET", "/app.js", {"Host": "127.0.0.1.evil.example:80"}, 403, "web-wrong-host"),
        ("GET", "/", {"Host": "192.168.1.1"}, 403, "web-wrong-host"),
        ("GET", "/", {"Host": "localhost@evil.example"}, 403, "web-wrong-host"),
        ("GET", "/api/status", {"Origin": "http://evil.example"}, 403, "web-foreign-origin"),
        ("GET", "/api/status", {"Origin": "null"}, 403, "web-foreign-origin"),
        ("GET", "/api/status", {"Sec-Fetch-Site": "same-site"}, 403, "web-foreign-origin"),
        ("GET", "/api/events", {"Sec-Fetch-Site": "cross-site", "Origin": ""}, 403, "web-foreign-origin"),
        ("POST", "/api/clients/x", {"Origin": ""}, 403, "web-foreign-origin"),
        ("POST", "/api/login", {"Origin": "http://127.0.0.1:1"}, 403, "web-foreign-origin"),
        ("GET", "/api/status", {"X-Htvpn-Code": ""}, 401, "web-no-session"),
        ("GET", "/api/status", {"X-Htvpn-Code": "0123456789abcdef." + "A" * 43}, 401, "web-no-session"),
        ("GET", "/api/events", {"Cookie": ""}, 401, "web-no-session"),
        ("POST", "/api/invitations", {"Cookie": 'htvpn_1="; a=b;=c; htvpn_2'}, 401, "web-no-session"),
        ("POST", "/api/clients/laptop", {"Content-Type": "text/plain"}, 400, "web-bad-request"),
        ("GET", "/../server.toml", {}, 404, "web-no-such-path"),
        ("GET", "/api/clients", {}, 404, "web-no-such-path"),
        ("DELETE", "/api/clients/laptop", {}, 405, "web-no-such-path"),
    ],
)
def test_a_request_that_is_not_of_this_page_is_refused_and_counted(
    web_exit, session, method, path, headers, status, reason
):
    before = web_exit.dropped(reason)
    answer = web_exit.ask(method, path, headers=session | headers)
    assert answer.status == status and answer.error
    assert web_exit.dropped(reason) == before + 1
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY


@pytest.mark.parametrize(
    "others",
    [
        'theme={"dark": true}; {}',
        "a@b=1; {}",
        "word; {}",
        "a=\xe9; {}",
        "{name}=stale; {}",
        "{}; {name}=stale",
    ],
)
def test_cookies_of_other_programs_of_this_machine_log_nobody_out(web_exit, session, others):
    own = session["Cookie"]
    header = others.replace("{name}", own.partition("=")[0]).replace("{}", own)
    assert web_exit.ask("GET", "/api/status", headers=session | {"Cookie": header}).status == 200


@pytest.mark.parametrize("host", ["localhost:9", "LOCALHOST", "127.0.0.1:8750", "127.8.9.1", "[::1]:8750"])
def test_the_page_answers_under_each_name_of_loopback_whatever_the_port_of_ssh(web_exit, host):
    answer = web_exit.ask("GET", "/", headers={"Host": host, "Origin": ""})
    assert answer.status == 200 and b"<title>Half-Tunnel exit</title>" in answer.body
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"name": 1, "expires": "1h"},
        {"name": "x"},
        {"name": "x", "expires": "9y"},
        {"name": "../x", "expires": "1h"},
    ],
)
def test_an_invitation_that_cannot_be_made_gets_a_sentence(web_exit, session, content):
    before = web_exit.dropped("web-bad-request")
    answer = web_exit.ask("POST", "/api/invitations", content, headers=session)
    assert answer.status == 400 and answer.error
    assert web_exit.dropped("web-bad-request") == before + 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nobody", {"disabled": True}),
        ("..%2F..%2Fserver", {"disabled": True}),
        ("x", {"disabled": "yes"}),
        ("x", {"public_key": "AAAA"}),
    ],
)
def test_a_change_that_cannot_be_made_gets_a_sentence(web_exit, session, name, content):
    answer = web_exit.ask("POST", f"/api/clients/{name}", content, headers=session)
    assert answer.status == 400 and answer.error


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "web-malformed-request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "web-malformed-request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400, "web-malformed-request"),
        (b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n", 403, "web-wrong-host"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, "web-malformed-request"),
        (
            b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n" + bytes(5000),
            413,
            "web-body-too-long",
        ),
    ],
    ids=["TLS", "no host", "two hosts", "old", "long head", "long body"],
)
def test_what_is_malformed_or_too_long_is_refused_and_counted(web_exit, data, status, reason):
    before = web_exit.dropped(reason)
    assert raw(web_exit.port, data).startswith(b"HTTP/1.1 %d " % status)
    assert web_exit.dropped(reason) == before + 1


def test_wrong_tokens_are_counted_and_limited_and_a_right_one_still_logs_in(web_exit):
    right = web_exit.token()
    wrong = right[:17] + "A" * 43
    statuses = [web_exit.ask("POST", "/api/login", {"token": wrong}).status for _ in range(3)]
    assert statuses == [403, 403, 403]
    assert web_exit.ask("POST", "/api/login", {"token": right}).status == 403, "void after three tries"
    guesses = [f"{number:016x}." + "A" * 43 for number in range(10)]
    last = [web_exit.ask("POST", "/api/login", {"token": guess}) for guess in [*guesses, "x" * 3000]][-1]
    assert last.status == 429 and "too many wrong tokens" in last.error
    assert web_exit.logged_in(), "nobody is locked out by the guesses of others"
    assert web_exit.dropped("web-wrong-token") >= 4 and web_exit.dropped("web-too-many-tries") >= 1


def test_no_more_pages_than_the_bound_are_kept_up_to_date(web_exit, session):
    head = "".join(f"{name}: {value}\r\n" for name, value in session.items())
    request = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{web_exit.port}\r\n{head}\r\n".encode()
    opened: list[socket.socket] = []
    try:
        answers = []
        for _ in range(17):
            opened.append(socket.create_connection(("127.0.0.1", web_exit.port), timeout=60))
            opened[-1].sendall(request)
            answers.append(opened[-1].recv(65536).split(b" ", 2)[1])
        assert answers == [b"200"] * 16 + [b"503"]
    finally:
        for connection in opened:
            connection.close()
    assert web_exit.dropped("web-too-many-readers") == 1


def test_a_page_is_nowhere_by_default_and_on_a_unix_socket_for_its_owner_alone(htvpn, another_exit, web_exit):
    directory = str(another_exit.directory)
    another_exit.start("")
    another_exit.wait_until_it_runs()
    refused = htvpn("server", "web", "--dir", directory)
    assert refused.returncode == 1 and 'write [web] listen = "127.0.0.1:8750"' in refused.stderr
    another_exit.stop()

    another_exit.start(f"127.0.0.1:{web_exit.port}")
    assert another_exit.process.wait(60) == 1
    assert f"cannot listen on 127.0.0.1 port {web_exit.port}" in another_exit.log.read_text()
    assert "Traceback" not in another_exit.log.read_text()

    another_exit.start("unix:web.sock")
    another_exit.wait_until_it_runs()
    path = another_exit.directory / "web.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    printed = htvpn("server", "web", "--dir", directory, "--port", "9000")
    assert printed.stdout.startswith("http://127.0.0.1:9000/#token=")
    assert f"ssh -N -L 9000:{path} EXIT" in printed.stderr
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9000\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    another_exit.stop()
    assert not path.exists()
