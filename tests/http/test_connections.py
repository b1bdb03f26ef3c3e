"""Clients that are slow, flood the server or speak no HTTP, while others are still answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.http.client import eventually, fetch
from uproxy.config.settings import Address
from uproxy.http.connections import ConnectionLimit, Timeouts
from uproxy.http.server import HttpServer

ANY = Address("127.0.0.1", 0)
SHORT = Timeouts(first_request=0.05, writing=0.05)
NEVER = Timeouts(first_request=600.0, writing=600.0)
"""So that no timeout ends a connection."""

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def hello(_: web.BaseRequest) -> web.Response:
    return web.Response(text="hello")


def application() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/", hello)
    return app


@asynccontextmanager
async def serving(
    target: web.Application | None = None, *, most: int = 4, timeouts: Timeouts = NEVER
) -> AsyncIterator[tuple[Address, ConnectionLimit]]:
    limit = ConnectionLimit(most)
    async with HttpServer(
        target or application(), [ANY], name="test", limit=limit, timeouts=timeouts
    ) as server:
        yield server.bound[0], limit


class Client:
    """One connection, read by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def asked(self) -> None:
        """One request and its answer."""
        await self.say(REQUEST)
        await self.reader.readuntil(b"hello")

    async def ended(self) -> bytes:
        """Everything that arrived until the server closed the connection."""
        async with asyncio.timeout(15):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
        return b""


@asynccontextmanager
async def client(address: Address) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HT", id="half a line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", id="headers without end"),
        pytest.param(b"\r\n" * 20, id="empty lines"),
    ],
)
@pytest.mark.parametrize("kind", ["application", "function"])
async def test_a_first_request_that_does_not_come_ends_the_connection(
    said: bytes, kind: str
) -> None:
    target = application() if kind == "application" else hello
    async with (
        HttpServer(target, [ANY], name="test", timeouts=SHORT) as server,
        client(server.bound[0]) as slow,
    ):
        await slow.say(said)
        assert await slow.ended() == b""


async def test_a_first_request_that_trickles_ends_the_connection() -> None:
    """Each byte is progress, and none of them is worth more time."""
    async with serving(timeouts=SHORT) as (address, limit), client(address) as slow:
        await slow.say(b"GET / HTTP/1.1\r\n")
        await eventually(lambda: len(limit) == 1)
        with contextlib.suppress(ConnectionError):
            while len(limit):
                await slow.say(b"X: y\r\n")
                await asyncio.sleep(0.02)
        assert await slow.ended() == b""


async def test_a_connection_that_has_asked_may_idle() -> None:
    async with serving(timeouts=SHORT) as (address, limit), client(address) as polite:
        await polite.asked()
        async with client(address) as silent:
            await silent.ended()  # It came later, and was there for long enough.
        await polite.asked()
        assert len(limit) == 1


async def test_idle_connections_are_closed_for_new_ones() -> None:
    async with serving(most=4) as (address, limit), contextlib.AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(client(address)) for _ in range(2)]
        for each in (kept[1], kept[0]):
            await each.asked()
        for _ in range(2):
            await stack.enter_async_context(client(address))
        assert (await fetch(address, "/")).body == b"hello"
        assert await kept[1].ended() == b"", "idle for the longest"
        await kept[0].asked()
        assert len(limit) <= 4


async def test_a_server_near_its_limit_asks_clients_to_close() -> None:
    """Then a client does not send its next request on a connection that is just being closed."""
    async with serving(most=4) as (address, _), contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(client(address))
        await first.asked()
        for _ in range(2):
            await stack.enter_async_context(client(address))
        await first.say(REQUEST)
        assert b"Connection: close" in await first.ended()


async def test_a_thousand_silent_connections_do_not_stop_a_probe() -> None:
    """They take no more descriptors than the limit; those in the queue take none."""
    async with serving(most=8) as (address, limit):
        before = len(os.listdir("/proc/self/fd"))
        silent = []
        for number in range(1000):
            sock = socket.socket()
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
            silent.append(sock)
            if number % 100 == 99:
                assert (await fetch(address, "/")).status == 200
        await eventually(lambda: len(limit) <= 8)
        taken = len(os.listdir("/proc/self/fd")) - before - len(silent)
        for sock in silent:
            sock.close()
        assert taken <= 8 + 32


async def test_a_busy_connection_is_not_closed_for_a_new_one() -> None:
    going, asked = asyncio.Event(), 0

    async def slow(_: web.BaseRequest) -> web.Response:
        nonlocal asked
        asked += 1
        await going.wait()
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", slow)
    async with serving(app, most=2) as (address, limit), contextlib.AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(client(address)) for _ in range(2)]
        for each in busy:
            await each.say(REQUEST)
        await eventually(lambda: asked == 2)
        async with client(address) as late:
            assert await late.ended() == b""
        assert len(limit) == 2
        going.set()
        for each in busy:
            await each.reader.readuntil(b"hello")


async def test_servers_may_share_a_limit() -> None:
    limit = ConnectionLimit(8)
    async with (
        HttpServer(hello, [ANY], name="one", limit=limit) as one,
        HttpServer(hello, [ANY], name="two", limit=limit) as two,
        contextlib.AsyncExitStack() as stack,
    ):
        for server in (one, two, one, two):
            each = await stack.enter_async_context(client(server.bound[0]))
            await each.asked()
        assert len(limit) == 4


async def test_the_connection_of_a_client_that_does_not_read_is_closed() -> None:
    async def long(_: web.BaseRequest) -> web.Response:
        return web.Response(body=b"x" * 20_000_000)

    app = web.Application()
    app.router.add_get("/", long)
    async with serving(app, timeouts=SHORT) as (address, limit), client(address) as deaf:
        await deaf.say(REQUEST)
        await eventually(lambda: len(limit) == 1)
        await eventually(lambda: len(limit) == 0)


async def test_pipelined_requests_of_a_client_that_does_not_read_are_not_all_answered() -> None:
    asked = 0

    async def count(_: web.BaseRequest) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=b"x" * 100_000)

    app = web.Application()
    app.router.add_get("/", count)
    async with serving(app, timeouts=SHORT) as (address, limit), client(address) as deaf:
        deaf.writer.write(REQUEST * 10_000)
        await eventually(lambda: asked > 0 and len(limit) == 0)
        assert asked < 1000


async def test_a_body_that_trickles_is_not_waited_for() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx"
    async with serving() as (address, _), client(address) as slow:
        await slow.say(post)
        assert (await slow.ended()).endswith(b"hello")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9, id="TLS"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="a version to come"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 99_999, id="a long header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 9_999 + b"\r\n", id="many headers"),
        pytest.param(b"GET /" + b"a" * 99_999 + b" HTTP/1.1\r\n\r\n", id="a long path"),
        pytest.param(b"\x1b[31m\x00 / HTTP/1.1\r\n\r\n", id="an odd method"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            id="two lengths",
        ),
    ],
)
async def test_nonsense_is_refused_and_no_event(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as (address, limit):
        async with client(address) as odd:
            with contextlib.suppress(ConnectionError):
                await odd.say(said)
            answer = await odd.ended()
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert (await fetch(address, "/")).status == 200
        await eventually(lambda: len(limit) == 0)
    assert [each for each in caplog.records if each.levelno > logging.DEBUG] == []


@pytest.mark.parametrize(
    ("said", "status"),
    [
        pytest.param(b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 200, id="absolute form"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404, id="asterisk form"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="no UTF-8"),
        pytest.param(b"GET /%ff%00 HTTP/1.1\r\nHost: a\r\n\r\n", 404, id="no UTF-8, encoded"),
        pytest.param(b"GET //evil//?%zz HTTP/1.1\r\nHost: a\r\n\r\n", 404, id="odd slashes"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", 200, id="an old version"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            200,
            id="upgrade",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            200,
            id="chunks without end",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
            200,
            id="a client that asks first",
        ),
    ],
)
async def test_odd_requests_have_an_answer(
    said: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as (address, _), client(address) as odd:
        await odd.say(said)
        async with asyncio.timeout(15):
            line = await odd.reader.readline()
            if b" 100 " in line:
                assert await odd.reader.readline() == b"\r\n"
                line = await odd.reader.readline()
        assert int(line.split()[1]) == status
    assert [each for each in caplog.records if each.levelno > logging.DEBUG] == []
