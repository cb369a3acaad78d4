"""A small web server over a directory, where nginx is missing: `python -m lab.webserver`.

GET sends a file; PUT below /upload/ stores one. HTTP/1.1 with keep-alive, IPv4 and IPv6.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import threading
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

COPY_PIECE: Final = 1 << 18
"""Bytes per read of a file or a body."""

UPLOADS: Final = "/upload/"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """As the base class does, in larger pieces."""
        shutil.copyfileobj(source, outputfile, COPY_PIECE)

    def do_PUT(self) -> None:
        """Store the body under the name after /upload/."""
        name = Path(self.path).name
        length = self.headers.get("Content-Length", "")
        if not self.path.startswith(UPLOADS) or name in ("", "..") or not length.isdigit():
            self.send_error(HTTPStatus.BAD_REQUEST)
            self.close_connection = True
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        left = int(length)
        with Path(self.directory, "upload", name).open("wb") as file:
            while left and (piece := self.rfile.read(min(left, COPY_PIECE))):
                file.write(piece)
                left -= len(piece)
        self.send_response(HTTPStatus.CREATED if left == 0 else HTTPStatus.BAD_REQUEST)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main() -> None:
    """Read the command line and serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=80)
    arguments = parser.parse_args()

    def handler(*details: object) -> _Handler:
        return _Handler(*details, directory=str(arguments.directory))  # type: ignore[arg-type]

    with _Server(("::", arguments.port), handler) as server:
        # shutdown() waits for the loop it ends, so it cannot be called from that loop's own thread.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
