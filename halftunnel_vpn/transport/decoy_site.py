"""The ordinary web server that everybody sees who is no valid client."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from http import HTTPStatus

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


class Site:
    """One page at ``/`` and error pages everywhere else; a path that carries legs is not to be told from
    one that does not exist. Every answer closes the connection.
    """

    def __init__(
        self,
        *,
        page: bytes = DEFAULT_PAGE,
        content_type: str = "text/html",
        server: str = "nginx",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``server`` is the Server header; ``clock`` gives seconds since 1970."""
        self._page = page
        self._content_type = content_type
        self.server = server
        self._clock = clock

    def answer(self, method: str, target: str) -> bytes:
        """The complete response to a well-formed request, whatever it asked for."""
        if method not in ("GET", "HEAD"):
            return self.refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        with_body = method == "GET"
        if target.partition("?")[0] == "/":
            return self._response(HTTPStatus.OK, self._content_type, self._page, with_body)
        return self.refuse(HTTPStatus.NOT_FOUND, with_body=with_body)

    def refuse(self, status: HTTPStatus, *, with_body: bool = True) -> bytes:
        """The complete response that says ``status``."""
        body = _ERROR_PAGE.format(status=status.value, phrase=status.phrase).encode()
        return self._response(status, "text/html", body, with_body)

    def date(self) -> str:
        """The Date header of a response made now."""
        return email.utils.formatdate(self._clock(), usegmt=True)

    def _response(self, status: HTTPStatus, content_type: str, body: bytes, with_body: bool) -> bytes:
        allow = "Allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Server: {self.server}\r\n"
            f"Date: {self.date()}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"{allow}"
            "Connection: close\r\n"
            "\r\n"
        )
        return head.encode("latin-1") + (body if with_body else b"")
