"""A small HTTP client for the tests, and sockets that are in its way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from uproxy.config.settings import Address

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")


class Fetched(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def fetch(
    address: tuple[str, int], path: str, *, method: str = "GET", **headers: str
) -> Fetched:
    """One request on a connection of its own. Raises OSError when nobody listens."""
    host, port = address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.request(method, url, headers=sent) as response,
    ):
        return Fetched(response.status, dict(response.headers), await response.read())


async def refused(address: tuple[str, int]) -> bool:
    """Whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection(*address)
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


def taken_port(host: str) -> socket.socket:
    """A listening socket on a port of its own; "" is every address of IPv4."""
    return socket.create_server((host, 0))


def address_of(sock: socket.socket) -> Address:
    return Address(*sock.getsockname()[:2])
