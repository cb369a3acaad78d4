"""One HTTP/1.1 connection as bytes in and messages out, for a server's side and for a client's."""

from __future__ import annotations

import h11

from halftunnel_vpn.http1.messages import (
    MalformedMessage,
    Part,
    RequestHead,
    ResponseHead,
    Signal,
    UnsendableMessage,
)


class _Side:
    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], max_head: int) -> None:
        self._connection = h11.Connection(role, max_incomplete_event_size=max_head)

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer; ``b""`` means that nothing more comes. Raises MalformedMessage."""
        try:
            self._connection.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise MalformedMessage(error.error_status_hint) from error

    def next(self) -> Part:
        """Return the next part of what was fed. Raises MalformedMessage."""
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise MalformedMessage(error.error_status_hint) from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.Request):
            return RequestHead(event.method, event.target, list(event.headers))
        if isinstance(event, h11.Response | h11.InformationalResponse):
            is_final = isinstance(event, h11.Response)
            return ResponseHead(event.status_code, event.reason, list(event.headers), is_final)
        if isinstance(event, h11.EndOfMessage):
            return Signal.END
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        return Signal.PAUSED if event is h11.PAUSED else Signal.CLOSED

    @property
    def unread(self) -> bytes:
        """Bytes that were fed and belong to no message so far."""
        return self._connection.trailing_data[0]

    @property
    def is_over(self) -> bool:
        """Whether this exchange is complete both ways, so that another may follow."""
        return self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE

    def start_next(self) -> None:
        """Begin the next exchange, once :attr:`is_over`."""
        self._connection.start_next_cycle()

    def data(self, data: bytes) -> bytes:
        """Return the bytes that carry a piece of our body. Raises UnsendableMessage."""
        return self._send(h11.Data(data=data))

    def end(self) -> bytes:
        """Return the bytes that end our message. Raises UnsendableMessage."""
        return self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        try:
            return self._connection.send(event) or b""
        except h11.LocalProtocolError as error:
            raise UnsendableMessage(str(error)) from error


class ServerSide(_Side):
    """Reads requests and writes responses; ``max_head`` bounds the bytes of a head."""

    def __init__(self, *, max_head: int) -> None:
        super().__init__(h11.SERVER, max_head)

    @property
    def may_respond(self) -> bool:
        """Whether no response to this request has begun."""
        return self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def response(self, head: ResponseHead) -> bytes:
        """Return the bytes of a response's head. Raises UnsendableMessage."""
        kind = h11.Response if head.is_final else h11.InformationalResponse
        return self._send(kind(status_code=head.status, headers=head.headers, reason=head.reason))


class ClientSide(_Side):
    """Writes requests and reads responses; ``max_head`` bounds the bytes of a head."""

    def __init__(self, *, max_head: int) -> None:
        super().__init__(h11.CLIENT, max_head)

    def request(self, head: RequestHead) -> bytes:
        """Return the bytes of a request's head. Raises UnsendableMessage."""
        try:
            event = h11.Request(method=head.method, target=head.target, headers=head.headers)
        except h11.LocalProtocolError as error:
            raise UnsendableMessage(str(error)) from error
        return self._send(event)
