"""Pods of the demo: each listens at the address of its endpoint and answers with its name.

A port whose name begins with "dns" speaks DNS, for dig: it answers with the name in a TXT record.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple, Self, cast

from aiohttp import web

from uproxy.core import protocols
from uproxy.core.cluster.legacy import as_slices
from uproxy.core.cluster.objects import Endpoint, Endpoints, EndpointSlice, Object
from uproxy.core.ip import is_host_address, parse_ip
from uproxy.core.printable import printable
from uproxy.core.route import Backend, Frontend
from uproxy.demo.proxy_header import WithoutHeader

MOST: Final = 1000
"""Backends at a time. Each takes a descriptor of this process, which flows do not need."""
_TXT, _IN = b"\x00\x10", b"\x00\x01"
_SPOKEN: Final = (protocols.TCP, protocols.UDP)


class Pod(NamedTuple):
    """One port of an endpoint, for which a backend is started."""

    name: str
    address: str
    port: int
    protocol: str
    dns: bool

    @property
    def socket(self) -> Frontend:
        """Where it listens."""
        return Frontend(self.protocol, self.address, self.port)


class Missing(NamedTuple):
    """Why a pod has no backend."""

    error: int
    """The errno of its socket; 0: there is no point in trying."""
    reason: str


def pods(objects: Iterable[Object]) -> list[Pod]:
    """A pod for each address and port of the endpoints among the objects, whatever their number.

    If several endpoints are at the same address and port, they are the same pod: the first one.
    """
    found: dict[Frontend, Pod] = {}
    for each in objects:
        slices = as_slices(each) if isinstance(each, Endpoints) else (each,)
        for one in slices:
            if isinstance(one, EndpointSlice):
                for pod in _of_slice(one):
                    found.setdefault(pod.socket, pod)
    return list(found.values())


def _of_slice(each: EndpointSlice) -> Iterator[Pod]:
    for endpoint in each.endpoints or ():
        for port in each.ports or ():
            dns = (port.name or "").startswith("dns")
            protocol = port.protocol or protocols.DEFAULT
            for address in endpoint.addresses or ():
                if port.port:
                    name = _name(endpoint, Backend(address, port.port))
                    yield Pod(name, address, port.port, protocol, dns)


def _name(endpoint: Endpoint, at: Backend) -> str:
    """Manifests that were written by hand seldom name pods. Clients show the name in terminals."""
    return printable((endpoint.target_ref.name if endpoint.target_ref else "") or str(at))


class Backends:
    """A backend for each pod that is wanted. An async context manager, whose end stops them."""

    def __init__(self) -> None:
        self._running: dict[Frontend, AsyncExitStack] = {}
        self.missing: Mapping[Pod, Missing] = {}
        """Pods that have no backend, and why."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.run(())

    async def run(self, wanted: Iterable[Pod]) -> None:
        """Start the backends that do not run yet, and stop those of other pods. A backend keeps its
        name as long as it runs."""
        pods = {pod.socket: pod for pod in wanted}
        missing: dict[Pod, Missing] = {}
        for at, pod in pods.items():
            reason = None if at in self._running else await self._start(pod)
            if reason is not None:
                missing[pod] = reason
        self.missing = missing
        for gone in self._running.keys() - pods.keys():
            await self._running.pop(gone).aclose()

    async def _start(self, pod: Pod) -> Missing | None:
        reason = _cannot_be_had(pod)
        if not reason and len(self._running) >= MOST:
            reason = f"there are {MOST:,} backends already"
        if reason:
            return Missing(0, reason)
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(_backend(pod))
        except OSError as error:
            return Missing(error.errno or 0, _why(error))
        self._running[pod.socket] = stack
        return None


def _cannot_be_had(pod: Pod) -> str:
    """Why there is no point in trying; "" if there is."""
    if pod.protocol not in _SPOKEN:
        return f"no backend of the demo speaks {pod.protocol}"
    address = parse_ip(pod.address)
    # A host name would be looked up, and 0.0.0.0 would be open to other machines.
    if address is None or not is_host_address(address):
        return "that is not the address of a pod"
    return ""


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there, and answers instead"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have the address; any of 127.0.0.0/8 will do"
    if error.errno == errno.EACCES:
        return "such a low port takes CAP_NET_BIND_SERVICE; choose one above 1023"
    return os.strerror(error.errno) if error.errno else str(error)


def _backend(pod: Pod) -> AbstractAsyncContextManager[None]:
    if pod.protocol == protocols.UDP:
        return _udp(pod)
    return _dns_over_tcp(pod) if pod.dns else _http(pod)


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

    answering = web.Server(hit, access_log=None)
    runner = web.ServerRunner(answering, shutdown_timeout=0)
    await runner.setup()
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: WithoutHeader(answering()), pod.address, pod.port)
        try:
            yield
        finally:
            server.close()
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
