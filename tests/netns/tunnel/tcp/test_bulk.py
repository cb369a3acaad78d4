"""A gigabyte each way, both ways at once, and what of it each road carries."""

from __future__ import annotations

import hashlib

import pytest

pytestmark = pytest.mark.root

GIGABYTE = 1_000_000_000
HUNDRED_MEGABYTES = 100_000_000


@pytest.fixture
def road_bytes(rig):
    """Payload that went over each road so far: (A up, A down, B up, B down)."""

    def read():
        status = rig.tunnel.status()
        return tuple(
            status[road][way]
            for road in ("upstream", "downstream")
            for way in ("sent_bytes", "received_bytes")
        )

    return read


@pytest.fixture
def share(road_bytes):
    """Takes a transfer; returns what it cost: (A up, A down, B up, B down)."""

    def measure(transfer):
        before = road_bytes()
        transfer()
        return tuple(after - before for after, before in zip(road_bytes(), before, strict=True))

    return measure


@pytest.mark.parametrize(("version", "size"), ((4, GIGABYTE), (6, HUNDRED_MEGABYTES)))
def test_an_upload_arrives_whole(ends, bulk, version, size):
    client, target = ends.pair(version)
    sent = bulk.send(client, size)
    assert bulk.receive(target).result() == sent.result()


@pytest.mark.parametrize(("version", "size"), ((4, HUNDRED_MEGABYTES), (6, GIGABYTE)))
def test_a_download_arrives_whole(ends, bulk, version, size):
    client, target = ends.pair(version)
    sent = bulk.send(target, size)
    assert bulk.receive(client).result() == sent.result()


def test_up_and_down_at_once_on_one_connection_and_on_two(ends, bulk):
    one = ends.pair()
    uploading, downloading = ends.pair(), ends.pair(6)
    sent = [
        bulk.send(one[0], HUNDRED_MEGABYTES),
        bulk.send(one[1], HUNDRED_MEGABYTES),
        bulk.send(uploading[0], HUNDRED_MEGABYTES),
        bulk.send(downloading[1], HUNDRED_MEGABYTES),
    ]
    received = [
        bulk.receive(one[1]),
        bulk.receive(one[0]),
        bulk.receive(uploading[1]),
        bulk.receive(downloading[0]),
    ]
    assert [future.result() for future in sent] == [future.result() for future in received]


def test_an_upload_by_curl_goes_up_on_road_a(rig, share):
    source = rig.lab.directory / "www" / "large.bin"
    stored = rig.target.uploads / "by-curl.bin"
    url = rig.target.file_url.replace(source.name, f"upload/{stored.name}")
    up_a, down_a, up_b, down_b = share(lambda: rig.client(f"curl -sSf -T {source} {url}"))
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == rig.target.file_sha256
    assert up_a >= HUNDRED_MEGABYTES
    assert up_a / (up_a + down_a) >= 0.98
    assert up_a / (up_a + down_a + up_b + down_b) >= 0.98


def test_a_download_by_curl_comes_down_on_road_b_and_sends_hardly_anything(rig, share):
    def download():
        assert rig.target.file_sha256 in rig.client(f"curl -sSf {rig.target.file_url} | sha256sum")

    up_a, down_a, up_b, down_b = share(download)
    assert down_b >= HUNDRED_MEGABYTES
    assert down_b / (up_b + down_b) >= 0.98
    assert down_b / (up_a + down_a + up_b + down_b) >= 0.98
    assert up_a + up_b < 0.01 * (down_a + down_b)
