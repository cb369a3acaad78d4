"""The ordinary web site that everyone except a valid client sees."""

from __future__ import annotations

import email.utils
import mimetypes
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.storage.bounded_file import read_regular

DEFAULT_PAGE = (
    b"<!DOCTYPE html>\n"
    b'<html lang="en">\n'
    b'<head><meta charset="utf-8"><title>It works</title></head>\n'
    b"<body><h1>It works</h1><p>There is nothing here yet.</p></body>\n"
    b"</html>\n"
)
"""What GET / shows when nothing else is configured."""

_ERROR_PAGE = (
    "<!DOCTYPE html>\n"
    "<html><head><title>{status} {phrase}</title></head>\n"
    "<body><h1>{status} {phrase}</h1></body></html>\n"
)


MAX_FILES = 1000
"""Files of a site; ``index.html`` counts twice."""

MAX_BYTES = 16 * 2**20
"""Bytes of all of them."""


class Page(NamedTuple):
    """One body and what it is."""

    body: bytes
    content_type: str


class Sites(NamedTuple):
    """The decoy sites of one listener: those of hosts by name in lower case, and one for all others."""

    default: Site
    by_host: Mapping[str, Site] = MappingProxyType({})

    def of(self, host: str | None) -> Site:
        """Return the site of ``host``, as TLS or a request names it."""
        return self.default if host is None else self.by_host.get(host.lower().rstrip("."), self.default)


class Site:
    """Pages by path, and error pages for everything else; a path that carries legs looks like one
    that does not exist. Every answer closes the connection. No server is named unless one is given.
    """

    def __init__(
        self,
        *,
        page: bytes = DEFAULT_PAGE,
        content_type: str = "text/html",
        pages: Mapping[str, Page] | None = None,
        server: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``page`` is the one at ``/``, unless ``pages`` are given; ``clock`` gives seconds since 1970."""
        self._pages = {"/": Page(page, content_type)} if pages is None else dict(pages)
        self.server = server
        self._clock = clock

    @classmethod
    def read(cls, path: Path) -> Site:
        """Return the site of one HTML file, or of a directory of pages.

        Raises OSError, and ConfigError when there are too many pages.
        """
        return cls(pages=_read_pages(path)) if path.is_dir() else cls(page=read_regular(path, MAX_BYTES))

    def answer(self, method: str, target: str) -> bytes:
        """Return the complete response to a well-formed request, whatever it asked for."""
        if method not in ("GET", "HEAD"):
            return self.refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        with_body = method == "GET"
        page = self._pages.get(unquote(target.partition("?")[0]))
        if page is not None:
            return self._response(HTTPStatus.OK, page, with_body)
        return self.refuse(HTTPStatus.NOT_FOUND, with_body=with_body)

    def refuse(self, status: HTTPStatus, *, with_body: bool = True) -> bytes:
        """Return the complete response with ``status``; a page ``/STATUS.html`` of the site is its body."""
        body = _ERROR_PAGE.format(status=status.value, phrase=status.phrase).encode()
        page = self._pages.get(f"/{status.value}.html", Page(body, "text/html"))
        return self._response(status, page, with_body)

    def date(self) -> str:
        """Return the Date header of a response made now."""
        return email.utils.formatdate(self._clock(), usegmt=True)

    def _response(self, status: HTTPStatus, page: Page, with_body: bool) -> bytes:
        allow = "Allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
        server = f"Server: {self.server}\r\n" if self.server else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"{server}"
            f"Date: {self.date()}\r\n"
            f"Content-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\n"
            f"{allow}"
            "Connection: close\r\n"
            "\r\n"
        )
        return head.encode("latin-1") + (page.body if with_body else b"")


def _read_pages(directory: Path) -> dict[str, Page]:
    """Every regular file below ``directory`` by its path; ``index.html`` also stands for its directory.

    They are read once, so that no request touches a file.
    """
    pages: dict[str, Page] = {}
    size = 0
    for file in sorted(directory.rglob("*")):
        name = file.relative_to(directory)
        if any(part.startswith(".") for part in name.parts) or file.is_symlink() or not file.is_file():
            continue
        size += file.stat().st_size
        if len(pages) >= MAX_FILES or size > MAX_BYTES:
            raise ConfigError(
                f"the site {directory} is too large; keep at most {MAX_FILES} files "
                f"and {MAX_BYTES >> 20} MiB in it"
            )
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        page = Page(read_regular(file, MAX_BYTES), kind)
        pages[f"/{name.as_posix()}"] = page
        if file.name == "index.html":
            parent = name.parent.as_posix()
            pages["/" if parent == "." else f"/{parent}/"] = page
    return pages
