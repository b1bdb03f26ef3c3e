"""Which hosts can be reached where, and what happens on the way."""

from __future__ import annotations

import errno
from enum import Enum
from typing import Final, Protocol

from tests.simulation.datagrams import DatagramSocket
from tests.simulation.streams import NODE, NOWHERE, WILDCARD, Address, Listening, Stream
from tests.simulation.world import Fault, World

UNANSWERED: Final = 20.0
"""Seconds after which the kernel gives up a connection that gets no answer."""


class Reply(Enum):
    """What a backend's address says to a new connection, or to a datagram."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    SILENT = "is silent"


class Host(Protocol):
    """A backend."""

    reply: Reply
    protocol: str

    def accept(self, stream: Stream) -> None:
        """A connection with it was established."""

    def datagram(self, data: bytes, source: Address) -> None:
        """One has arrived."""


class Network:
    """Carries connections and datagrams between the simulated process and all others."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hosts: dict[Address, Host] = {}
        self.listeners: dict[Address, list[Listening]] = {}
        self.sockets: dict[Address, DatagramSocket] = {}
        """UDP sockets of the process, by the address that they are bound to."""
        self.clients: dict[Address, Host] = {}
        """Who hears the datagrams of the process, beside hosts."""
        self.sent: list[Stream] = []
        """Streams that the process has opened, in order."""
        self.sizes: tuple[int, ...] = (16_384,)
        """Of socket buffers, in bytes: each connection has some of them."""
        self.accepted: list[Stream] = []
        """Streams that clients have opened, in order."""
        self.opened: list[DatagramSocket] = []
        """UDP sockets of the process, whatever became of them."""
        self.astray: set[Address] = set()
        """Backends whose replies to pods of this node do not come back."""
        self.refused = 0
        """Datagrams for ports without a socket."""
        self.segments = True
        """Whether paths take segments (UDP_SEGMENT)."""
        self.mtu = 65_535
        """Of paths. Longer datagrams are sent in fragments, and longer segments are refused."""
        self.came: list[tuple[DatagramSocket, Address, bytes]] = []
        """Datagrams for the process, in the order in which they have come to its sockets."""
        self.went: list[bytes] = []
        """Those that it has sent, in order."""
        self._port = 30_000

    def lay(self, mtu: int, narrows: float, *, segments: bool) -> None:
        """What paths are like. `narrows`: when their MTU becomes smaller, unless 0."""
        self.mtu, self.segments = mtu, segments
        if narrows:
            self.world.after(narrows, lambda: setattr(self, "mtu", 90))

    def stream(self, name: str) -> Stream:
        """One end of a connection that is yet to be."""
        choice = self.world.random.choice
        return Stream(self.world, name, receives=choice(self.sizes), sends=choice(self.sizes))

    def port(self) -> int:
        self._port += 1
        return self._port

    def listener(self, address: Address) -> Listening | None:
        """Whoever accepts connections to an address."""
        for key in (address, (WILDCARD, address[1])):
            for each in self.listeners.get(key, ()):
                if each.listens and not each.released:
                    return each
        return None

    def dial(self, stream: Stream, target: Address) -> None:
        """The process opens a connection."""
        if stream.local == NOWHERE:
            stream.local = (NODE, self.port())
        stream.remote = target
        stream.connecting = True
        self.sent.append(stream)
        self.world.soon(lambda: self._arrive(stream, target))

    def _arrive(self, stream: Stream, target: Address) -> None:
        host = self.hosts.get(target)
        if stream.released:
            return
        reply = host.reply if host is not None else Reply.REFUSES
        if reply is Reply.SILENT or self._goes_astray(target, stream.local):
            self.world.after(UNANSWERED, lambda: stream.refuse(errno.ETIMEDOUT))
        elif host is None or reply is Reply.REFUSES or host.protocol != "TCP":
            self.world.soon(lambda: stream.refuse(errno.ECONNREFUSED))
        else:
            self.world.soon(lambda: self._establish(stream, host))

    def is_taken(self, local: Address, remote: Address) -> bool:
        """Whether a connection of the process has these two ends."""
        return any(
            each.references and (each.local, each.remote) == (local, remote) for each in self.sent
        )

    def _goes_astray(self, source: Address, target: Address) -> bool:
        """Whether a reply of a backend does not reach the process."""
        return source in self.astray and target[0] != NODE

    def _establish(self, stream: Stream, host: Host) -> None:
        if stream.released:
            return
        server = self.stream(f"backend {stream.remote[0]}:{stream.remote[1]} of {stream.local[1]}")
        stream.join(server)
        stream.wake(0)
        host.accept(server)

    def connect(self, stream: Stream, client: Address, target: Address) -> Stream | None:
        """A client's connection arrives. The end that the process accepts, or None."""
        listener = self.listener(target)
        if listener is None:
            return None
        stream.local, stream.remote = client, target
        accepted = self.stream(f"client {client[1]}")
        stream.join(accepted)
        self.accepted.append(accepted)
        listener.offer(accepted)
        return accepted

    def carry(self, sender: DatagramSocket, data: bytes, source: Address, target: Address) -> None:
        """A datagram of the process is on its way."""
        self.went.append(data)
        if not self.world.chance(Fault.LOST_DATAGRAM):
            self.world.soon(lambda: self._deliver(sender, data, source, target))

    def _deliver(
        self, sender: DatagramSocket, data: bytes, source: Address, target: Address
    ) -> None:
        host = self.hosts.get(target) or self.clients.get(target)
        if host is None or host.reply is Reply.REFUSES:
            self.refused += 1
            if not self._goes_astray(target, source):
                self.world.soon(lambda: sender.refused(source, target))
        elif host.reply is Reply.ACCEPTS:
            host.datagram(data, source)

    def to_process(self, data: bytes, source: Address, target: Address) -> bool:
        """A datagram for the process has arrived. Whether anybody has got it."""
        if self._goes_astray(source, target):
            return False
        bound = self.sockets.get(target) or self.sockets.get((WILDCARD, target[1]))
        if bound is None or (bound.remote is not None and bound.remote != source):
            return False
        return bound.arrive(data, source, target)

    def bind(self, socket: DatagramSocket, address: Address) -> None:
        socket.local = address
        if socket not in self.opened:
            self.opened.append(socket)
        self.sockets[address] = socket

    def forget(self, socket: DatagramSocket) -> None:
        if self.sockets.get(socket.local) is socket:
            del self.sockets[socket.local]
