"""Backends that the simulated process may connect to."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.network import Reply
from tests.simulation.peers import Peer, Script
from tests.simulation.streams import Address, Stream
from tests.simulation.world import World


class Backend:
    """A TCP server; what each of its connections does is in a script of its own."""

    protocol = "TCP"

    def __init__(
        self, world: World, address: Address, reply: Reply, next_script: Callable[[], Script]
    ) -> None:
        self.world = world
        self.address = address
        self.reply = reply
        self.peers: list[Peer] = []
        self._next_script = next_script

    def accept(self, stream: Stream) -> None:
        name = f"backend {self.address[0].rpartition('.')[2]}/{len(self.peers)}"
        peer = Peer(self.world, name, stream, self._next_script())
        self.peers.append(peer)
        if self.world.trace is not None:
            self.world.note(name, f"accepts port {stream.remote[1]}")
        peer.begin()

    def datagram(self, data: bytes, source: Address) -> None:
        raise AssertionError("a datagram for a TCP server")
