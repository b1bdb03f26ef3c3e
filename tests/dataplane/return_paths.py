"""Clients whose replies may not come back, and what keeps these from them."""

from __future__ import annotations

import asyncio
import socket

from tests.dataplane.node_worker import NodeWorker
from tests.netns import kit
from tests.netns.kit import Place
from tests.netns.peers import Pod
from uproxy.core.protocols import TCP
from uproxy.net.client_ports import CLIENT_PORTS

FAMILIES = ("IPv4", "IPv6")
ASTRAY = f"meta l4proto {{ tcp, udp }} th dport {CLIENT_PORTS.start}-{CLIENT_PORTS.stop - 1}"
"""Replies to pods' addresses, as a node receives them."""


class Resolver:
    """A client that sends a datagram again if there is no reply, as DNS clients do."""

    def __init__(self, made: NodeWorker, place: Place, family: str) -> None:
        node = made.net.node.address(family)
        self.sock = place.space.socket(kit.family_of(node), socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((node, 80))

    def answer(self) -> str:
        try:
            return self.sock.recv(1000).decode().strip()
        except BlockingIOError:
            return ""

    async def until_answered(self) -> str:
        """Send every 0.1 s."""
        async with asyncio.timeout(20):
            while True:
                self.sock.send(b"hello")
                await asyncio.sleep(0.1)
                if answer := self.answer():
                    return answer

    async def until(self, made: NodeWorker) -> None:
        """Send every 0.1 s until a probe is over."""
        async with asyncio.timeout(20):
            paths = made.context.return_paths
            while not paths._not_before or paths._probes:
                self.sock.send(b"hello")
                await asyncio.sleep(0.1)


def denies(place: Place, family: str) -> str:
    """What a network policy drops."""
    return f"{'ip6' if family == 'IPv6' else 'ip'} saddr {place.address(family)}"


async def fails(made: NodeWorker, place: Place, protocol: str, family: str) -> None:
    """What a client there sends is not answered, also after a probe has found out why."""
    if protocol == TCP:
        assert await made.ask(place, TCP, family) == "reset"
        await made.probed()
        return
    client = Resolver(made, place, family)
    with client.sock:
        await client.until(made)
        assert client.answer() == ""


def seen(it: Pod, protocol: str) -> set[str]:
    return {client for kind, client, _ in it.seen if kind == protocol}
