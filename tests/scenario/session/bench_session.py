"""Two sessions over legs in memory: what the cores cost without any input and output."""

from __future__ import annotations

from halftunnel_vpn.protocol.keys import Direction

PIECE = bytes(62_000)


def test_a_megabyte_upstream(benchmark, pair):
    client, exit_ = pair.open()
    for end in (pair.end(pair.client, Direction.UPSTREAM), pair.end(pair.exit, Direction.DOWNSTREAM)):
        end.capacity = 64

    def carry():
        for _ in range(16):
            if client.stream.room >= len(PIECE):
                client.stream.send(PIECE)
            pair.settle()
        exit_.received.clear()

    benchmark(carry)


def test_a_hundred_streams_that_ask_and_are_answered(benchmark, pair):
    users = [pair.open() for _ in range(100)]

    def exchange():
        for client, _ in users:
            client.stream.send(b"GET / HTTP/1.1\r\n\r\n")
        pair.settle()
        for _, exit_ in users:
            exit_.stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        pair.settle()

    benchmark(exchange)


def test_open_and_close_a_stream(benchmark, pair):
    def live():
        client, exit_ = pair.open()
        client.stream.finish()
        exit_.stream.finish()
        pair.settle()

    benchmark.pedantic(live, rounds=200, iterations=5)
