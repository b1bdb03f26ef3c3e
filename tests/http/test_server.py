"""HttpServer on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.http.client import (
    address_of,
    eventually,
    fetch,
    needs_ipv6,
    refused,
    taken_port,
)
from tests.ports import free_port
from uproxy.config.settings import Address
from uproxy.core.backoff import Backoff
from uproxy.http.server import HttpServer, ServeError

ANY = Address("127.0.0.1", 0)
AT_ONCE = Backoff(initial=0.001, maximum=0.001)


async def say_hello(_: web.BaseRequest) -> web.Response:
    return web.Response(text="hello")


def application() -> web.Application:
    app = web.Application()
    app.router.add_get("/hello", say_hello)
    return app


def server(*addresses: Address, dual_stack: bool = False) -> HttpServer:
    return HttpServer(say_hello, addresses, name="test", dual_stack=dual_stack, retry=AT_ONCE)


async def test_serves_an_application_until_it_is_closed() -> None:
    async with HttpServer(application(), [ANY], name="test") as serving:
        (address,) = serving.bound
        assert (await fetch(address, "/hello")).body == b"hello"
        assert (await fetch(address, "/other")).status == 404
        assert serving.reason == ""
    assert serving.bound == ()
    assert await refused(address)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"])
async def test_serves_a_function_for_any_method_and_path(method: str) -> None:
    async with server(ANY) as serving:
        answer = await fetch(serving.bound[0], "/a/b?c=d", method=method)
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"hello")


async def test_serves_on_every_address() -> None:
    async with server(ANY, Address("127.0.0.2", 0)) as serving:
        for address in serving.bound:
            assert (await fetch(address, "/")).body == b"hello"
        assert [address.host for address in serving.bound] == ["127.0.0.1", "127.0.0.2"]


async def test_one_taken_port_closes_the_other_addresses() -> None:
    with taken_port("127.0.0.2") as taken:
        free = Address("127.0.0.1", free_port())
        async with server(free, address_of(taken)) as serving:
            port = address_of(taken).port
            assert serving.reason == (
                f"TCP port {port} on 127.0.0.2 is already in use by another process"
            )
            assert serving.bound == ()
            assert await refused(free)


async def test_open_raises_what_reason_says() -> None:
    with taken_port("127.0.0.1") as taken:
        serving = server(address_of(taken))
        with pytest.raises(ServeError, match="already in use") as caught:
            await serving.open()
        assert str(caught.value) == serving.reason


async def test_an_address_that_the_node_lacks_is_a_reason() -> None:
    async with server(Address("192.0.2.77", 1)) as serving:
        assert serving.reason == "address 192.0.2.77 is not on this node"


async def test_retries_until_the_port_is_free() -> None:
    with taken_port("127.0.0.1") as taken:
        async with server(address_of(taken)) as serving, asyncio.TaskGroup() as tasks:
            tasks.create_task(serving.retry())
            await asyncio.sleep(0)
            assert serving.reason
            taken.close()
            await eventually(lambda: serving.bound != ())
            assert (await fetch(serving.bound[0], "/")).body == b"hello"
            assert serving.reason == ""


async def test_retry_of_a_server_that_listens_returns_at_once() -> None:
    async with server(ANY) as serving:
        bound = serving.bound
        await serving.retry()
        assert serving.bound == bound
        assert (await fetch(bound[0], "/")).body == b"hello"


async def test_opening_and_closing_twice_is_fine() -> None:
    serving = server(ANY)
    await serving.open()
    bound = serving.bound
    await serving.open()
    assert serving.bound == bound
    await serving.close()
    await serving.close()


async def test_a_port_can_be_taken_again_right_after_close() -> None:
    async with server(ANY) as first:
        (address,) = first.bound
        await fetch(address, "/")
        await first.close()
        async with server(address) as second:
            assert second.reason == ""
            assert (await fetch(address, "/")).body == b"hello"


@contextlib.asynccontextmanager
async def connection(address: Address, sent: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        pytest.param(b"", False, id="nothing sent"),
        pytest.param(REQUEST[:20], False, id="half a request"),
        pytest.param(REQUEST, True, id="kept alive after a request"),
        pytest.param(REQUEST + REQUEST[:20], True, id="one and a half requests"),
    ],
)
async def test_open_connections_do_not_delay_closing(sent: bytes, answered: bool) -> None:
    serving = server(ANY)
    await serving.open()
    async with connection(serving.bound[0], sent) as reader:
        if answered:
            await reader.readuntil(b"hello")
        else:
            await fetch(serving.bound[0], "/")  # The first connection is accepted by now.
        async with asyncio.timeout(0.9):  # Less than what a request in progress would get.
            await serving.close()
        assert await reader.read() == b""


async def test_a_body_that_nobody_asked_for_does_not_delay_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Health check node ports are closed one after the other, and all else waits for that."""
    monkeypatch.setattr("uproxy.http.server._SHUTDOWN_TIMEOUT", 60.0)
    monkeypatch.setattr("uproxy.http.connections._LINGERING_TIME", 60.0)
    serving = server(ANY)
    await serving.open()
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx"
    (address,) = serving.bound
    async with connection(address, post) as reader:
        await reader.readuntil(b"hello")
        async with asyncio.timeout(15):
            await serving.close()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b"", "the connection has ended too"
        assert await refused(address)


@needs_ipv6
@pytest.mark.parametrize("dual_stack", [True, False])
async def test_ipv4_clients_of_the_ipv6_wildcard(dual_stack: bool) -> None:
    port = free_port()
    async with server(Address("::", port), dual_stack=dual_stack) as serving:
        assert (await fetch(("::1", port), "/")).body == b"hello"
        assert serving.bound == (Address("::", port),)
        assert await refused(("127.0.0.1", port)) is not dual_stack


@needs_ipv6
async def test_the_ipv4_wildcard_takes_ipv6_clients_too() -> None:
    """As in kube-proxy: where nodes have IPv6 alone, kubelet probes an IPv6 address."""
    port = free_port()
    async with server(Address("0.0.0.0", port), dual_stack=True) as serving:
        assert (await fetch(("127.0.0.1", port), "/")).body == b"hello"
        assert (await fetch(("::1", port), "/")).body == b"hello"
        assert serving.bound == (Address("::", port),)


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
async def test_wildcards_of_a_host_without_ipv6(
    wildcard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.has_dualstack_ipv6", lambda: False)
    port = free_port()
    async with server(Address(wildcard, port), dual_stack=True) as serving:
        assert (await fetch(("127.0.0.1", port), "/")).body == b"hello"
        assert serving.bound == (Address("0.0.0.0", port),)


@needs_ipv6
async def test_both_wildcards_can_have_one_port() -> None:
    port = free_port()
    async with server(Address("0.0.0.0", port), Address("::", port)) as serving:
        assert serving.reason == ""
        assert (await fetch(("127.0.0.1", port), "/")).body == b"hello"
        assert (await fetch(("::1", port), "/")).body == b"hello"
