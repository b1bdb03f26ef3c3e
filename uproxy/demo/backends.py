"""Pods of the demo: each listens at the address of its endpoint and answers with its name.

A port whose name begins with "dns" speaks DNS, for dig: it answers with the name in a TXT record.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple, cast

from aiohttp import web

from uproxy.core import protocols
from uproxy.core.cluster.objects import EndpointSlice, Object

_TXT, _IN = b"\x00\x10", b"\x00\x01"


class Pod(NamedTuple):
    """One port of an endpoint, for which a backend is started."""

    name: str
    address: str
    port: int
    protocol: str
    dns: bool


class BackendError(Exception):
    """A backend cannot listen, for example because its address is taken."""

    def __init__(self, pod: Pod, error: OSError) -> None:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
        super().__init__(f"{pod.protocol} port {pod.port} on {pod.address} {reason}")


def pods(objects: Iterable[Object]) -> Iterator[Pod]:
    """A pod for each address and port in the EndpointSlices among the objects."""
    for each in objects:
        if not isinstance(each, EndpointSlice):
            continue
        for endpoint in each.endpoints or ():
            name = endpoint.target_ref.name if endpoint.target_ref else each.metadata.name
            for port in each.ports or ():
                dns = (port.name or "").startswith("dns")
                for address in endpoint.addresses or ():
                    yield Pod(
                        name, address, port.port or 0, port.protocol or protocols.DEFAULT, dns
                    )


@asynccontextmanager
async def running(wanted: Iterable[Pod]) -> AsyncIterator[None]:
    """Run a backend for each pod. Raises BackendError."""
    async with AsyncExitStack() as stack:
        for pod in wanted:
            try:
                if pod.protocol == protocols.UDP:
                    await stack.enter_async_context(_udp(pod))
                elif pod.dns:
                    await stack.enter_async_context(_dns_over_tcp(pod))
                else:
                    await stack.enter_async_context(_http(pod))
            except OSError as error:
                raise BackendError(pod, error) from error
        yield


def greeting(pod: Pod) -> str:
    return f"You've hit {pod.name}\n"


def answer(query: bytes, name: str) -> bytes:
    """A DNS answer (RFC 1035): one TXT record with the name, whatever the question is.

    If the query is not DNS, the answer is the plain name.
    """
    end = _end_of_question(query)
    if end is None:
        return f"{name}\n".encode()
    text = name.encode()[:255]
    header = query[:2] + b"\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00"
    data = bytes([len(text)]) + text
    record = b"\xc0\x0c" + _TXT + _IN + b"\x00\x00\x00\x00" + len(data).to_bytes(2, "big") + data
    return header + query[12:end] + record


def _end_of_question(query: bytes) -> int | None:
    if len(query) < 17 or query[4:6] != b"\x00\x01" or query[2] & 0x80:
        return None
    at = 12
    while at < len(query) and query[at]:
        at += 1 + query[at]
    return at + 5 if at + 5 <= len(query) else None


@asynccontextmanager
async def _http(pod: Pod) -> AsyncIterator[None]:
    async def hit(request: web.BaseRequest) -> web.Response:
        return web.Response(text=greeting(pod))

    runner = web.ServerRunner(web.Server(hit, access_log=None), shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, pod.address, pod.port).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _dns_over_tcp(pod: Pod) -> AsyncIterator[None]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                reply = answer(await reader.readexactly(size), pod.name)
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, pod.address, pod.port)
    try:
        yield
    finally:
        server.close()


@asynccontextmanager
async def _udp(pod: Pod) -> AsyncIterator[None]:
    class Answering(asyncio.DatagramProtocol):
        transport: asyncio.DatagramTransport

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # uvloop's transport has the methods, but is not a subclass.
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(answer(data, pod.name), address)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        Answering, local_addr=(pod.address, pod.port)
    )
    try:
        yield
    finally:
        transport.close()
