"""UDP clients and servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulation.network import Network, Reply
from tests.simulation.streams import Address, Stream
from tests.simulation.world import Violation, World


@dataclass(frozen=True, kw_only=True, slots=True)
class Sending:
    """What a client does: when it sends a datagram, and of how many bytes."""

    at: tuple[float, ...]
    sizes: tuple[int, ...]
    port: int
    """The port that it sends from."""
    keeps: bool = False
    """Whether its flow must not move or end, because it has become a conversation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replying:
    """What a server does with a datagram."""

    replies: tuple[int, ...]
    """How many it may send: one of these is chosen for each datagram."""
    sizes: tuple[int, ...]
    delay: float
    """The most seconds before it replies."""


def datagram(kind: bytes, client: int, number: int, size: int) -> bytes:
    """A datagram that says whose it is, unless it is too short for that."""
    name = kind + bytes([client]) + number.to_bytes(2, "big")
    return (name + Random(number).randbytes(max(0, size - len(name))))[:size]


class UdpClient:
    """Sends to one frontend, and records what comes back."""

    reply = Reply.ACCEPTS
    protocol = "UDP"

    def __init__(
        self, world: World, network: Network, number: int, target: Address, sending: Sending
    ) -> None:
        self.world = world
        self.network = network
        self.number = number
        self.name = f"client {number}"
        self.address = (f"198.51.100.{number + 1}", sending.port)
        self.target = target
        self.sent: list[bytes] = []
        self.lost = 0
        """How many of them found no socket, or one without room."""
        self.received: list[tuple[bytes, Address]] = []
        self.keeps = sending.keeps
        self._sending = sending
        network.clients[self.address] = self
        for at, size in zip(sending.at, sending.sizes, strict=True):
            world.after(at + 1e-6, lambda size=size: self._send(size))  # type: ignore[misc]

    @property
    def finished(self) -> bool:
        return len(self.sent) == len(self._sending.at)

    def accept(self, stream: Stream) -> None:
        raise Violation("a connection to a client")

    def datagram(self, data: bytes, source: Address) -> None:
        self.received.append((data, source))
        if self.world.trace is not None:
            self.world.note(self.name, f"receives {_spelled(data)} from {source[0]}:{source[1]}")

    def _send(self, size: int) -> None:
        data = datagram(b"Q", self.number, len(self.sent), size)
        self.sent.append(data)
        if self.world.trace is not None:
            self.world.note(self.name, f"sends {_spelled(data)}")
        if not self.network.to_process(data, self.address, self.target):
            self.lost += 1


class UdpServer:
    """Records what comes, and replies. A connection is refused."""

    protocol = "UDP"

    def __init__(
        self,
        world: World,
        network: Network,
        address: Address,
        reply: Reply,
        replying: Replying,
        number_of: Callable[[], int],
    ) -> None:
        self.world = world
        self.network = network
        self.address = address
        self.reply = reply
        self.received: list[tuple[bytes, Address]] = []
        self.sent: list[bytes] = []
        self.lost = 0
        self._replying = replying
        self._number_of = number_of
        """Numbers replies: no two of all servers are the same."""

    def accept(self, stream: Stream) -> None:
        raise Violation("a connection to a UDP server")

    def datagram(self, data: bytes, source: Address) -> None:
        self.received.append((data, source))
        if self.world.trace is not None:
            self.world.note(f"backend {self.address[0]}", f"receives {_spelled(data)}")
        random = self.world.random
        for _ in range(random.choice(self._replying.replies)):
            size = random.choice(self._replying.sizes)
            client = data[1] if len(data) > 1 else 255
            answer = datagram(b"R", client, self._number_of(), size)
            self.world.after(
                random.random() * self._replying.delay,
                lambda answer=answer: self._reply(answer, source),  # type: ignore[misc]
            )

    def _reply(self, data: bytes, target: Address) -> None:
        self.sent.append(data)
        if not self.network.to_process(data, self.address, target):
            self.lost += 1


def _spelled(data: bytes) -> str:
    if len(data) < 4:
        return f"{len(data)} bytes"
    number = int.from_bytes(data[2:4], "big")
    return f"{data[:1].decode(errors='replace')}{data[1]}/{number}, {len(data)} bytes"
