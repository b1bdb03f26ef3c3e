"""One end of the stream Unix socket between the control process and a worker.

`messages` says what travels on it, `framing` how messages become bytes. This module is about the
descriptors that travel along. Every `Open` in a frame comes with one descriptor, in order, as
SCM_RIGHTS with the frame's first byte. The kernel never merges reads across such a boundary
(unix(7): ancillary data is a barrier for received data), so counting is enough to match them up.

A receiver that has no descriptor free gets fewer than were sent, and the kernel closes the rest
(recvmsg(2): MSG_CTRUNC). All descriptors that come with one read belong to one frame, so a mark
behind them says that the remaining `Open`s of that frame have none. The worker then says
`Unserved`.
"""

from __future__ import annotations

import array
import errno
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

import msgspec

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.net.framing import FrameError, FrameReader, frame
from uproxy.net.messages import Open
from uproxy.net.sockets import LINUX, SocketCalls

MAX_DESCRIPTORS = 200
"""Per frame; the kernel's limit is 253 (SCM_MAX_FD)."""

_FULL: Final = 1 << 20
"""Bytes after which a frame gets no further message."""
_READ: Final = 256 * 1024
_MAX_READS: Final = 500
_MAX_BYTES: Final = 2 << 20
"""Reads and bytes in one call of `receive`, so that other callbacks of the event loop can run. It
is more than a sender that has closed can have left: 208 KiB (net.core.wmem_default), of which each
frame takes 768 bytes or more. So one call always reaches the end of the channel, which it has to:
uvloop calls back only once for it if the sender has not read all that it was sent."""
_TEMPORARY: Final = RESOURCE_ERRORS | {errno.ETOOMANYREFS}
"""Sending may succeed later. ETOOMANYREFS: the other end has not yet received the descriptors that
are on their way, of which there may be no more than RLIMIT_NOFILE (unix(7))."""
_LOST: Final = -1
"""Stands for all descriptors of a frame that did not arrive."""

Outgoing = tuple[object, socket.socket | None]
"""A message, and the socket that goes with it if it is an `Open`."""
M = TypeVar("M")


class Channel(Generic[M]):
    """Never blocks, and never raises for what the other end or the kernel does.

    `kind` is the union of messages that this end receives. The caller registers `fileno()` for
    reading and, while `wants_write`, for writing. Once `ended` says why, nothing arrives any more.
    """

    def __init__(self, sock: socket.socket, kind: type[M], calls: SocketCalls = LINUX) -> None:
        sock.setblocking(False)
        self.ended = ""
        """Why nothing more can be sent or received; "" while that is possible."""
        self.fault = ""
        """The same, where the other end has sent something that is not a message."""
        self.out_of_resources = False
        """Whether the last attempt to send failed for want of memory or descriptors. No event tells
        when there are some again, so the caller has to try again after a while."""
        self._sock = sock
        self._calls = calls
        self._encoder = msgspec.msgpack.Encoder()
        self._reader = FrameReader(kind)
        self._unsent = bytearray()
        """The rest of frames whose descriptors, if any, are sent."""
        self._descriptors: deque[int] = deque()
        """Descriptors that have arrived, and marks for those that were lost, in order."""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether the rest of a frame is not yet sent."""
        return bool(self._unsent)

    def offer(self, messages: Iterable[Outgoing]) -> int:
        """Send as many of the messages as fit in one frame; returns how many were taken.

        None is taken while the socket has no room. A socket that goes with an `Open` is needed only
        during this call: the kernel has its own reference to what is on its way.
        """
        self.flush()
        if self._unsent or self.ended:
            return 0
        encoded, attached = self._first_frame(messages)
        if not encoded:
            return 0
        sent = self._send(frame(encoded), attached)
        return len(encoded) if sent else 0

    def post(self, *messages: object) -> None:
        """Take messages without descriptors, even if the socket is full, and send what fits."""
        self._unsent += frame([self._encoder.encode(each) for each in messages])
        self.flush()

    def flush(self) -> None:
        """Send as much of what was taken as the socket has room for."""
        if self._unsent and not self.ended:
            rest, self._unsent = self._unsent, bytearray()
            if not self._send(rest, []):
                self._unsent = rest

    def flush_for(self, seconds: float) -> None:
        """Send all that was taken, and wait for room for so long at most: for the last words of a
        process."""
        room = select.poll()
        room.register(self._sock, select.POLLOUT)
        deadline = time.monotonic() + seconds
        self.flush()
        while self._unsent and not self.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            room.poll(left * 1000)
            self.flush()

    def receive(self) -> list[tuple[M, int | None]]:
        """Messages that have arrived, each `Open` with its descriptor or, if that was lost, None.

        The caller has to close the descriptors. There may be more messages; then the socket is
        still readable.
        """
        messages: list[tuple[M, int | None]] = []
        size = reads = 0
        while not self.fault and reads < _MAX_READS and size < _MAX_BYTES:
            got = self._read()
            if not got:
                break
            messages += self._complete()
            size += got
            reads += 1
        return messages

    def close(self) -> None:
        """Close the channel, with all descriptors that no message has taken."""
        self.ended = self.ended or "closed"
        self._sock.close()
        for number in self._descriptors:
            if number != _LOST:
                self._calls.close(number)
        self._descriptors.clear()

    def _first_frame(self, messages: Iterable[Outgoing]) -> tuple[list[bytes], list[int]]:
        """The first of the messages, encoded, and the descriptors that go with them."""
        encoded: list[bytes] = []
        attached: list[int] = []
        size = 0
        for message, sock in messages:
            encoded.append(self._encoder.encode(message))
            size += len(encoded[-1])
            if sock is not None:
                attached.append(sock.fileno())
            if len(attached) == MAX_DESCRIPTORS or size > _FULL:
                break
        return encoded, attached

    def _send(self, data: bytearray, attached: list[int]) -> bool:
        """Send the beginning, and keep the rest; False if nothing could be sent.

        The descriptors go with the first byte, so a call that sends only a part of the data has
        sent all of them.
        """
        self.out_of_resources = False
        try:
            if attached:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", attached))
                sent = self._sock.sendmsg([data], [rights])
            else:
                sent = self._sock.send(data)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _TEMPORARY:
                self.out_of_resources = True
            else:
                self.ended = str(error)
            return False
        self._unsent += memoryview(data)[sent:]
        return True

    def _read(self) -> int:
        """Read once; 0 if nothing was there, or ever will be."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in RESOURCE_ERRORS:
                self.ended = str(error)
            return 0
        self._descriptors.extend(_rights(ancillary))
        if flags & socket.MSG_CTRUNC:
            # Behind those of its frame that have arrived, and before those of the next frame.
            self._descriptors.append(_LOST)
        if not data:
            self.ended = "closed by the other end"
            return 0
        self._reader.feed(data)
        return len(data)

    def _complete(self) -> list[tuple[M, int | None]]:
        messages: list[tuple[M, int | None]] = []
        try:
            for each in self._reader.frames():
                messages += self._with_descriptors(each)
        except FrameError as error:
            self.ended = self.fault = f"sent an invalid message ({error})"
        return messages

    def _with_descriptors(self, messages: list[M]) -> Iterator[tuple[M, int | None]]:
        """The messages of one frame, each `Open` with its descriptor."""
        waiting, lost = self._descriptors, False
        for message in messages:
            number = None
            if isinstance(message, Open) and waiting and not lost:
                number = waiting.popleft()
                if number == _LOST:
                    number, lost = None, True
            yield message, number


def _rights(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            # A list that was cut may end in the middle of a number.
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            yield from numbers
