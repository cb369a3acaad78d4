"""A collector of OpenTelemetry: takes OTLP over HTTP and keeps it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    peer: str


class ReceivedSpan(NamedTuple):
    """One span, with ids in hexadecimal; ``parent`` is empty for a root."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    is_error: bool
    seconds: float


class Collector:
    """Listens until :meth:`close`. ``answer`` is what it sends back: a whole HTTP response, None for none."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[Received] = []
        self.answer: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self._closing = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                peer = str(self.client_address[0])
                collector.requests.append(Received(self.path, dict(self.headers), body, peer))
                if collector.answer is None:
                    collector._closing.wait()
                    self.close_connection = True
                    return
                self.wfile.write(collector.answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of a connection that has broken."""

        self._server = Server((address, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{address}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; let requests without an answer go."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Every span, in the order of arrival."""
        return [span for received in list(self.requests) for span in _spans(received)]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The last snapshot of each service: metrics by name."""
        latest: dict[str, dict[str, Any]] = {}
        for received in list(self.requests):
            if received.path == "/v1/metrics":
                for resource in ExportMetricsServiceRequest.FromString(received.body).resource_metrics:
                    found = {each.name: each for scope in resource.scope_metrics for each in scope.metrics}
                    latest[_service(resource.resource)] = found
        return latest


def _spans(received: Received) -> Iterator[ReceivedSpan]:
    if received.path != "/v1/traces":
        return
    for resource in ExportTraceServiceRequest.FromString(received.body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    _service(resource.resource),
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    {each.key: each.value.string_value or each.value.int_value for each in span.attributes},
                    span.status.code == 2,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _service(resource: Any) -> str:
    return str(next(each.value.string_value for each in resource.attributes if each.key == "service.name"))


def main(address: str, port: str) -> None:
    """Print one line of JSON for each request, until killed."""
    collector = Collector(address, int(port))
    shown = 0
    while True:
        time.sleep(0.05)
        for received in collector.requests[shown:]:
            shown += 1
            spans = [(span.service, span.name, span.trace) for span in _spans(received)]
            print(json.dumps({"peer": received.peer, "path": received.path, "spans": spans}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
