"""Answers of the ordinary web server."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.transport.decoy_site import DEFAULT_PAGE, MAX_BYTES, Site


@pytest.fixture
def site():
    return Site(clock=lambda: 784111777.0)


def split(response: bytes):
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


def test_the_page(site):
    status, headers, body = split(site.answer("GET", "/?utm=1"))
    assert (status, body) == ("HTTP/1.1 200 OK", DEFAULT_PAGE)
    assert headers == {
        "Date": "Sun, 06 Nov 1994 08:49:37 GMT",
        "Content-Type": "text/html",
        "Content-Length": str(len(DEFAULT_PAGE)),
        "Connection": "close",
    }


@pytest.mark.parametrize("target", ["/", "/nothing"])
def test_head_is_get_without_the_body(site, target):
    status, headers, body = split(site.answer("GET", target))
    assert split(site.answer("HEAD", target)) == (status, headers, b"")
    assert int(headers["Content-Length"]) == len(body) > 0


@pytest.mark.parametrize("target", ["/x", "//", "/index", "*", "http://x/", "/%2f"])
def test_everything_else_is_not_found(site, target):
    assert split(site.answer("GET", target))[0] == "HTTP/1.1 404 Not Found"


def test_other_methods_are_not_allowed(site):
    status, headers, _ = split(site.answer("POST", "/"))
    assert (status, headers["Allow"]) == ("HTTP/1.1 405 Method Not Allowed", "GET, HEAD")


def test_a_refusal_says_no_more_than_its_status(site):
    status, _, body = split(site.refuse(HTTPStatus.BAD_REQUEST))
    assert status == "HTTP/1.1 400 Bad Request"
    assert b"400 Bad Request" in body


def test_a_directory_of_pages(tmp_path):
    (tmp_path / "index.html").write_text("home")
    (tmp_path / "404.html").write_text("gone")
    (tmp_path / "bread").mkdir()
    (tmp_path / "bread" / "index.html").write_text("rye")
    (tmp_path / "style.css").write_text("p {}")
    (tmp_path / ".secret").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    site = Site.read(tmp_path)
    for target, body, kind in (
        ("/", b"home", "text/html"),
        ("/bread/?x=1", b"rye", "text/html"),
        ("/style.css", b"p {}", "text/css"),
    ):
        status, headers, shown = split(site.answer("GET", target))
        assert (status, shown, headers["Content-Type"]) == ("HTTP/1.1 200 OK", body, kind)
        assert "Server" not in headers
    for target in ("/.secret", "/link", "/../etc/passwd", "/%2e%2e/etc/passwd", "/bread"):
        status, _, body = split(site.answer("GET", target))
        assert (status, body) == ("HTTP/1.1 404 Not Found", b"gone")


def test_a_directory_that_is_too_large_is_refused(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="too large"):
        Site.read(tmp_path)
