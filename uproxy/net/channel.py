"""What the control process and a worker say to each other, and how descriptors travel with it.

A stream Unix socket carries frames: a 4-byte length, then a msgpack array of messages. Every
`Open` in a frame comes with one descriptor, in order, as SCM_RIGHTS with the frame's first byte;
the kernel never merges reads across such a boundary, so counting is enough to match them up.

A receiver that has no descriptor free gets fewer than were sent, and the rest are gone for good
(unix(7): MSG_CTRUNC). All that come with one read belong to one frame, so a mark behind them tells
which of its `Open`s have none.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.counters import Counters
from uproxy.core.ip import Family
from uproxy.core.route import Backend, Frontend, Route, ServicePortName

MOST_DESCRIPTORS = 200
"""Per frame; the kernel's limit is 253 (SCM_MAX_FD)."""

_HEADER = struct.Struct("!I")
_ARRAY = struct.Struct("!BI")
"""Head of a msgpack array, whose items follow one by one."""
_FULL = 1 << 20
"""Bytes after which a frame gets no further message."""
_LONGEST = 1 << 28
"""Bytes; a length beyond it is none. The longest message is a route, with some MiB of backends."""
_READ = 256 * 1024
_READS = 500
_MUCH = 2 << 20
"""Reads and bytes in a row, before others get their turn. It is more than a sender that has closed
can have left: 208 KiB (net.core.wmem_default), of which each frame takes 768 bytes or more. uvloop
calls back only once then, if the sender has not read all that it was sent."""
_SHORT = RESOURCE_ERRORS | {errno.ETOOMANYREFS}
"""The kernel is short of something; the other side is to blame for ETOOMANYREFS, as it has not
taken the descriptors that are on their way."""
_CUT = -1
"""Stands for all descriptors of a frame that did not arrive."""


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
    """Seconds between reports of counters; every other one comes even if there is nothing new, as
    a sign of life."""
    busy_poll: bool = False
    """Whether the worker may look for completions before it sleeps."""


class LocalClients(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Who counts as this node or a pod of the cluster (policy Local short-circuit)."""

    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    preserved: tuple[Family, ...] = ()
    """Families in which local backends can be shown the addresses of the others."""


class Open(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Serve a frontend on the descriptor that comes along. Unusable routes come as well.

    Where the worker serves the frontend already, it is another `Update`.
    """

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
    failing: list[tuple[ServicePortName, tuple[Backend, ...]]] = []
    """Where attempts to reach backends have failed: some that have not answered since."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The worker runs and has read its settings."""

    engine: str = ""
    """What it relays by: "io_uring" or "epoll"."""


class Unserved(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The `Open`s of these frontends could not be carried out, and are asked for again; none: all
    is there."""

    frontends: list[Frontend]


class Drained(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Asked to drain, the worker has no flow left."""


FromWorker = Report | Ready | Unserved | Drained
Outgoing = tuple[object, socket.socket | None]
"""A message, and the socket that goes with it if it is an `Open`."""
M = TypeVar("M")


class Channel(Generic[M]):
    """One end. Never blocks, and never raises for what the other side or the kernel does.

    `kind` is the union of messages that this end receives. The caller watches `fileno()` for
    reading and, while `wants_write`, for writing. Once `ended` says why, nothing comes any more.
    """

    def __init__(self, sock: socket.socket, kind: type[M]) -> None:
        sock.setblocking(False)
        self.ended = ""
        """Why nothing more can be said or heard; "" while that is possible."""
        self.fault = ""
        """The same where the other side has said what makes no sense."""
        self.short = False
        """Whether the last attempt to send has failed for a lack that may pass, which no readiness
        for writing announces."""
        self._sock = sock
        self._decoder: msgspec.msgpack.Decoder[list[M]] = msgspec.msgpack.Decoder(list[kind])  # type: ignore[valid-type]
        self._encoder = msgspec.msgpack.Encoder()
        self._unsent = bytearray()
        """The rest of frames whose descriptors, if any, are sent."""
        self._received = bytearray()
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something that was taken is not yet sent."""
        return bool(self._unsent)

    def offer(self, messages: Iterable[Outgoing]) -> int:
        """Send as many of the messages as fit in one frame; returns how many were taken.

        None is taken while there is no room. A socket is needed only during this call: the kernel
        has its own reference to what is on its way.
        """
        self.flush()
        if self._unsent or self.ended:
            return 0
        parts, attached = self._frame(messages)
        if not parts:
            return 0
        sent = self._send(_framed(parts), attached)
        return len(parts) if sent else 0

    def post(self, *messages: object) -> None:
        """Take messages without descriptors, whatever the room, and send what fits."""
        self._unsent += _framed([self._encoder.encode(each) for each in messages])
        self.flush()

    def flush(self) -> None:
        """Send as much of what was taken as the socket has room for."""
        if self._unsent and not self.ended:
            rest, self._unsent = self._unsent, bytearray()
            if not self._send(rest, []):
                self._unsent = rest

    def receive(self) -> list[tuple[M, int | None]]:
        """Messages that are there, each `Open` with its descriptor or, if that was lost, None.

        The descriptors are the caller's to close. There may be more; then the socket is readable.
        """
        messages: list[tuple[M, int | None]] = []
        size = reads = 0
        while not self.fault and reads < _READS and size < _MUCH:
            got = self._read()
            if not got:
                break
            messages += self._complete()
            size += got
            reads += 1
        return messages

    def close(self) -> None:
        """Close the channel, with all descriptors that were not taken."""
        self.ended = self.ended or "closed"
        self._sock.close()
        for number in self._descriptors:
            if number != _CUT:
                os.close(number)
        self._descriptors.clear()

    def _frame(self, messages: Iterable[Outgoing]) -> tuple[list[bytes], list[int]]:
        """The first of the messages, encoded, and the descriptors that go with them."""
        parts: list[bytes] = []
        attached: list[int] = []
        size = 0
        for message, sock in messages:
            parts.append(self._encoder.encode(message))
            size += len(parts[-1])
            if sock is not None:
                attached.append(sock.fileno())
            if len(attached) == MOST_DESCRIPTORS or size > _FULL:
                break
        return parts, attached

    def _send(self, data: bytearray, attached: list[int]) -> bool:
        """Send the beginning, and keep the rest; False if nothing could be sent."""
        self.short = False
        try:
            if attached:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", attached))
                sent = self._sock.sendmsg([data], [rights])
            else:
                sent = self._sock.send(data)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _SHORT:
                self.short = True
            else:
                self.ended = str(error)
            return False
        self._unsent += memoryview(data)[sent:]
        return True

    def _read(self) -> int:
        """Read once; 0 if nothing was there, or ever will be."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ, socket.CMSG_SPACE(4 * MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in RESOURCE_ERRORS:
                self.ended = str(error)
            return 0
        self._descriptors.extend(_rights(ancillary))
        if flags & socket.MSG_CTRUNC:
            self._descriptors.append(_CUT)
        if not data:
            self.ended = "closed by the other side"
            return 0
        self._received += data
        return len(data)

    def _complete(self) -> list[tuple[M, int | None]]:
        messages: list[tuple[M, int | None]] = []
        start = 0
        while len(self._received) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._received, start)
            end = start + _HEADER.size + size
            if size > _LONGEST:
                self._broken(f"a frame of {size} bytes was announced")
            if self.fault or len(self._received) < end:
                break
            try:
                decoded = self._decoder.decode(
                    memoryview(self._received)[start + _HEADER.size : end].tobytes()
                )
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                self._broken(str(error))
                break
            messages += self._with_descriptors(decoded)
            start = end
        del self._received[:start]
        return messages

    def _broken(self, why: str) -> None:
        self.ended = self.fault = f"sent a message that makes no sense ({why})"

    def _with_descriptors(self, messages: list[M]) -> Iterator[tuple[M, int | None]]:
        waiting, cut = self._descriptors, False
        for message in messages:
            number = None
            if isinstance(message, Open) and waiting and not cut:
                number = waiting.popleft()
                if number == _CUT:
                    number, cut = None, True
            yield message, number


def _framed(parts: list[bytes]) -> bytearray:
    size = _ARRAY.size + sum(map(len, parts))
    frame = bytearray(_HEADER.pack(size))
    frame += _ARRAY.pack(0xDD, len(parts))
    for part in parts:
        frame += part
    return frame


def _rights(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            yield from numbers
