"""What the control process and a worker say to each other, and how descriptors travel with it.

A stream Unix socket carries frames: a 4-byte length, then a msgpack array of messages. Every
`Open` in a frame comes with one descriptor, in order, as SCM_RIGHTS with the frame's first byte;
the kernel never merges reads across such a boundary, so counting is enough to match them up.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from uproxy.core.counters import Counters
from uproxy.core.ip import Family
from uproxy.core.route import Frontend, Route, ServicePortName

_HEADER = struct.Struct("!I")
_MAX_DESCRIPTORS = 200
"""Per sendmsg; the kernel's limit is 253 (SCM_MAX_FD)."""
_READ = 256 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """First message to a worker, once."""

    worker: int
    """Index, from 0."""
    workers: int
    max_flows: int
    """For this worker alone."""
    udp_timeout: float
    tcp_idle_timeout: float
    half_close_timeout: float
    report_interval: float = 0.5
    """Seconds between reports of counters."""
    preserved: tuple[Family, ...] = ()
    """Families in which local backends can be shown the addresses of outside clients."""
    busy_poll: bool = False
    """Whether the worker may look for completions before it sleeps."""


class LocalClients(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Who counts as this node or a pod of the cluster (policy Local short-circuit)."""

    addresses: tuple[str, ...]
    networks: tuple[str, ...]


class Open(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Serve a frontend on the descriptor that comes along. Unusable routes come as well."""

    route: Route


class Update(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A frontend's route has changed; where it has become usable again, accept again."""

    route: Route


class Close(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Stop serving a frontend. Its TCP flows get `grace` seconds to end, UDP flows none."""

    frontend: Frontend
    grace: float


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Stop accepting anything, keep relaying, and answer `Drained` when the last flow has ended."""


ToWorker = Settings | LocalClients | Open | Update | Close | Drain


class Report(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Counters since the last report (`active` is absolute), for ports where any changed."""

    ports: list[tuple[ServicePortName, Counters]]
    active: int
    """All flows of the worker."""
    most: int = 0
    """Flows that it can have, where it may open too few files for its part of --max-flows."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The worker runs and has read its settings."""

    engine: str = ""
    """What it relays by: "io_uring" or "epoll"."""


class Drained(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Asked to drain, the worker has no flow left."""


FromWorker = Report | Ready | Drained
M = TypeVar("M")


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel(Generic[M]):
    """One end. Never blocks: what cannot be sent waits, in order, until `flush` is called again.

    `kind` is the union of messages that this end receives. The caller watches `fileno()` for
    reading and, while `wants_write`, for writing.
    """

    def __init__(self, sock: socket.socket, kind: type[M]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder: msgspec.msgpack.Decoder[list[M]] = msgspec.msgpack.Decoder(list[kind])  # type: ignore[valid-type]
        self._encoder = msgspec.msgpack.Encoder()
        self._unsent: deque[tuple[memoryview, tuple[socket.socket, ...]]] = deque()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def unsent(self) -> int:
        """Frames that wait."""
        return len(self._unsent)

    @property
    def wants_write(self) -> bool:
        return bool(self._unsent)

    def send(self, messages: Sequence[object], sockets: Sequence[socket.socket] = ()) -> None:
        """Queue messages, then send what fits. `sockets` go to the messages' `Open`s, in order.

        The sockets belong to the channel from here on, and are closed when they were sent: give
        it duplicates. Raises ChannelClosed.
        """
        for batch, attached in _batches(messages, sockets):
            body = self._encoder.encode(batch)
            self._unsent.append((memoryview(_HEADER.pack(len(body)) + body), attached))
        self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes. Raises ChannelClosed."""
        while self._unsent:
            data, attached = self._unsent[0]
            try:
                sent = self._send_some(data, attached)
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            for sock in attached:
                sock.close()
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
            else:
                self._unsent.popleft()

    def receive(self) -> list[tuple[M, int | None]]:
        """All messages that are there, each `Open` with its descriptor, others with None.

        The descriptors are the caller's to close. Raises ChannelClosed at the end of the stream.
        """
        messages: list[tuple[M, int | None]] = []
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    _READ, socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return messages
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            self._take_descriptors(ancillary)
            if not data:
                if messages:
                    return messages
                raise ChannelClosed("end of stream")
            self._received += data
            messages += self._complete()

    def close(self) -> None:
        """Close the channel, with all descriptors that were neither sent nor taken."""
        self._sock.close()
        for _, attached in self._unsent:
            for sock in attached:
                sock.close()
        self._unsent.clear()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _send_some(self, data: memoryview, attached: tuple[socket.socket, ...]) -> int:
        if not attached:
            return self._sock.send(data)
        numbers = array.array("i", [each.fileno() for each in attached])
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)
        return self._sock.sendmsg([data], [rights])

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                self._descriptors.extend(numbers)

    def _complete(self) -> list[tuple[M, int | None]]:
        messages: list[tuple[M, int | None]] = []
        start = 0
        while len(self._received) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._received, start)
            end = start + _HEADER.size + size
            if len(self._received) < end:
                break
            for message in self._decoder.decode(bytes(self._received[start + _HEADER.size : end])):
                attached = self._descriptors.popleft() if isinstance(message, Open) else None
                messages.append((message, attached))
            start = end
        del self._received[:start]
        return messages


def _batches(
    messages: Sequence[object], sockets: Sequence[socket.socket]
) -> list[tuple[list[object], tuple[socket.socket, ...]]]:
    """Frames of at most as many `Open`s as one sendmsg can carry descriptors for."""
    waiting = deque(sockets)
    batches: list[tuple[list[object], tuple[socket.socket, ...]]] = []
    batch: list[object] = []
    attached: list[socket.socket] = []
    for message in messages:
        if len(attached) == _MAX_DESCRIPTORS:
            batches.append((batch, tuple(attached)))
            batch, attached = [], []
        batch.append(message)
        if isinstance(message, Open):
            attached.append(waiting.popleft())
    if batch:
        batches.append((batch, tuple(attached)))
    return batches
