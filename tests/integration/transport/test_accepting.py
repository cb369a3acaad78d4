"""A listener notices when its socket accepts no more connections."""

from __future__ import annotations

import asyncio
import socket

import pytest

from halftunnel_vpn.errors import UnexpectedEnd
from halftunnel_vpn.transport.decoy_site import DEFAULT_PAGE, Site, Sites
from halftunnel_vpn.transport.listen import Listener


async def test_accepting_that_ends_by_itself_is_no_silence(free_port):
    listener = Listener({}, Sites(Site(page=DEFAULT_PAGE)))
    await listener.start("127.0.0.1", free_port)
    supervised = asyncio.ensure_future(listener.supervise())
    (sock,) = listener._accepting.values()
    sock.shutdown(socket.SHUT_RDWR)  # accept(2) fails with EINVAL from now on
    async with asyncio.timeout(20):
        with pytest.raises(UnexpectedEnd, match="no longer accepts connections"):
            await supervised
    await listener.close()


async def test_accepting_that_is_stopped_is_no_failure(free_port):
    listener = Listener({}, Sites(Site(page=DEFAULT_PAGE)))
    await listener.start("127.0.0.1", free_port)
    supervised = asyncio.ensure_future(listener.supervise())
    await asyncio.sleep(0)
    await listener.close()
    async with asyncio.timeout(20):
        await supervised
