"""UDP by io_uring: what clients send, and what backends reply, arrives in buffers of the ring, and
leaves from there together with the datagrams of all other flows.

Everything else about a flow is as in `UdpFlow`, which is also who copes with refusals.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from _socket import socket as Socket
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.udp.flow import Address, Key, Listening, UdpFlow
from uproxy.net import pktinfo
from uproxy.uring.abi import (
    BUFFER_IN_KEY,
    BUFFER_SHIFT,
    DATAGRAM_FLAGS,
    HAS_BUFFER,
    MORE,
    RESULT,
    SEND,
    SEND_FAILED,
    SEND_MESSAGE,
    UNSENT,
    errno_of,
)
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import COUNT, REPLY, SIZE, Datagrams

if TYPE_CHECKING:
    from uproxy.dataplane.udp.listener import UdpListener

_LENGTH: Final = struct.Struct("=8xI")
"""In struct io_uring_recvmsg_out, with which a message in a buffer begins: bytes of payload."""
_OUT: Final = 16
_QUADS: Final = SIZE // 8
_HEADER: Final = struct.Struct("=QQQQQQQ")
"""struct msghdr: name and its length, vectors and their number, control data and its length, flags;
an int beside 4 bytes of padding counts as 8."""
_MESSAGE: Final = struct.Struct("=QQQQQQQQQ")
"""struct msghdr, and its only vector: address and length."""
_NAME_V4, _NAME_V6 = 16, 28
_V4: Final = 8
"""Bytes of a struct sockaddr_in that are not always zero."""
_CONTROL_V4, _CONTROL_V6 = 32, 40
"""Room for struct in_pktinfo and in6_pktinfo behind a struct cmsghdr of 16 bytes."""


class RingIntake:
    """Receives for a listener, on its socket."""

    def __init__(self, datagrams: Datagrams, listener: UdpListener, *, wildcard: bool) -> None:
        self.datagrams = datagrams
        self.ring = datagrams.ring
        self.buffers = datagrams.buffers
        self.fd = listener.sock.fileno()
        self._listener = listener
        self._flows = cast("dict[Key, RingUdpFlow]", listener.flows)
        self._wildcard = wildcard
        self._six = six = listener.sock.family == socket.AF_INET6
        name, control = (_NAME_V6, _CONTROL_V6) if six else (_NAME_V4, _CONTROL_V4)
        self._name_end = _OUT + name
        control = control if wildcard else 0
        self._begin = self._name_end + control
        self._header = bytearray(_HEADER.pack(0, name, 0, 0, 0, control, 0))
        self._messages = bytearray(COUNT * _MESSAGE.size)
        """A message header for each buffer, for replies of wildcard listeners."""
        self.counts = [0] * COUNT
        """Of each buffer, the bytes of the last reply that was sent from it."""
        self._messages_at = address_of(self._messages)
        self.round = -1
        """Of the ring, when `tick` was called last."""
        self.now = 0.0
        """Monotonic seconds, as of then."""
        self.queue = self.ring.queue
        self.use = self.buffers.used.append
        """Says that a send was queued, which frees its buffer."""
        self.base = self.buffers.base
        self.reply, self.reply_message = SEND | self.fd << 32, SEND_MESSAGE | self.fd << 32
        self._quads = self.buffers.quads
        self._closed = False
        self._key = datagrams.add(self._arrived)
        self._arm()

    def close(self) -> None:
        """Before the socket is closed."""
        self._closed = True
        self.ring.remove(self._key)
        self.ring.cancel(self._key)
        self.ring.finish_cancelled()  # The port is free when the socket is closed.

    def tick(self) -> float:
        """Monotonic seconds, once in a round of the ring."""
        self.round = self.ring.round
        self.now = self._listener.context.reactor.tick()
        return self.now

    def payload(self, buffer: int) -> memoryview:
        """The datagram in a buffer that came from a client."""
        (count,) = _LENGTH.unpack(self.buffers.view(buffer, 0, _LENGTH.size))
        return self.buffers.view(buffer, self._begin, self._begin + count)

    def message(self, buffer: int, count: int, flow: RingUdpFlow) -> int:
        """Address of a message header: the first bytes of a buffer, to a flow's client from the
        address that it has asked."""
        at = buffer * _MESSAGE.size
        address = self._messages_at + at
        _MESSAGE.pack_into(
            self._messages, at, flow.name, flow.name_length, address + _HEADER.size, 1,
            flow.control, flow.control_length, 0, self.buffers.address(buffer), count,
        )  # fmt: skip
        return address

    def _arm(self) -> None:
        if not self._closed:
            self.datagrams.receive_messages(self.fd, self._key, address_of(self._header))

    def _arrived(self, completion: int) -> None:
        if not completion & MORE:
            # An error that was queued on the socket (it is cleared), or no buffer was free.
            self.ring.again(self._arm)
        if not completion & HAS_BUFFER:
            return
        buffer = completion >> BUFFER_SHIFT
        key: Key
        if self._six:
            key = self._key_of_six(buffer)
        else:
            # Of a struct sockaddr_in what is not zero, and of a struct in_pktinfo ipi_spec_dst: for
            # a broadcast, the address to reply from.
            at = buffer * _QUADS + _OUT // 8
            key = self._quads[at]
            if self._wildcard:
                key |= self._quads[at + 4] >> 32 << 64
        if self.round != self.ring.round:
            self.tick()
        flow = self._flows.get(key) or self._admit(key)
        if flow is not None:
            flow.forward(buffer, self._begin, (completion & RESULT) - self._begin)
        else:
            self.buffers.free(buffer)

    def _key_of_six(self, buffer: int) -> bytes:
        """A struct sockaddr_in6, and ipi6_addr of a struct in6_pktinfo."""
        key = self.buffers.view(buffer, _OUT, self._name_end).tobytes()
        if self._wildcard:
            local = self._name_end + 16
            key += self.buffers.view(buffer, local, local + 16)
        return key

    def _admit(self, key: Key) -> RingUdpFlow | None:
        name, local = _unpacked(key)
        self._listener.admit(key, _address(name), local if self._wildcard else b"")
        return self._flows.get(key)


class RingUdpFlow(UdpFlow):
    """A flow of a listener with a RingIntake."""

    __slots__ = ("_fd", "_intake", "_memory", "_ring", "_ring_key", "_round", "_tag",
                 "_to_backend", "control", "control_length", "name",
                 "name_length")  # fmt: skip

    def __init__(
        self, listener: Listening, key: Key, client: Address, control: pktinfo.Control
    ) -> None:
        super().__init__(listener, key, client, control)
        assert listener.intake is not None
        self._intake = listener.intake
        self._ring = listener.intake.ring
        self._ring_key = self._tag = 0
        self._to_backend = 0
        self._round = -1
        """Of the ring, when an operation was queued last that names our descriptors or memory."""
        self.name_length = _NAME_V6 if len(client) == 4 else _NAME_V4
        ancillary = b"".join(
            struct.pack("=Qii", 16 + len(data), level, kind) + data for level, kind, data in control
        )
        self.control_length = len(ancillary)
        self._memory = bytearray(_unpacked(key)[0].ljust(32, b"\0") + ancillary)
        self.name = address_of(self._memory)
        """Address of the client's address."""
        self.control = self.name + 32
        """Address of the ancillary data of replies."""

    def forward(self, buffer: int, begin: int, count: int) -> None:
        """Send a datagram of the client from a buffer of the ring."""
        intake = self._intake
        self.last = intake.now
        intake.queue(
            self._to_backend, 0, intake.base + buffer * SIZE + begin, count | DATAGRAM_FLAGS,
            self._tag | buffer << BUFFER_IN_KEY,
        )  # fmt: skip
        intake.use(buffer)
        self._round = intake.round
        counters = self.counters
        counters.client_bytes += count
        counters.client_datagrams += 1
        if self._young:
            self._look_at(intake.buffers.view(buffer, begin, begin + count))

    def _watch(self, sock: Socket) -> None:
        self._fd = sock.fileno()
        self._ring_key = self._intake.datagrams.add(self._arrived)
        self._tag = self._ring_key | SEND_FAILED
        self._to_backend = SEND | self._fd << 32
        self._arm()

    def _unwatch(self, sock: Socket) -> None:
        ring, key = self._ring, self._ring_key
        if self._round < ring.round - 1:
            ring.remove(key)
        else:
            ring.bequeath(key, partial(self._too_late, tuple(self._kept)))
        ring.cancel(key)
        if self._round == ring.round:
            ring.flush()

    def _arm(self) -> None:
        self._round = self._ring.round
        self._intake.datagrams.receive(self._fd, self._ring_key)

    def _arrived(self, completion: int) -> None:
        """A reply, most of the time."""
        if not completion & MORE:
            self._unusual(completion)
            return
        intake = self._intake
        round_ = self._round = self._ring.round
        self.last = intake.now if intake.round == round_ else intake.tick()
        if not self._replied:
            self._first_reply(self.last)
        buffer, count = completion >> BUFFER_SHIFT, completion & RESULT
        intake.counts[buffer] = count
        tag = self._tag | (buffer | REPLY) << BUFFER_IN_KEY
        if self.control_length:
            intake.queue(
                intake.reply_message, 0, intake.message(buffer, count, self),
                1 | DATAGRAM_FLAGS, tag,
            )  # fmt: skip
        else:
            intake.queue(
                intake.reply, self.name, intake.base + buffer * SIZE, count | DATAGRAM_FLAGS, tag,
                self.name_length << 32,
            )  # fmt: skip
        intake.use(buffer)
        counters = self.counters
        counters.backend_bytes += count
        counters.backend_datagrams += 1

    def _unusual(self, completion: int) -> None:
        if completion & UNSENT:
            self._unsent(completion)
            return
        code, key = errno_of(completion), self._ring_key
        if completion & HAS_BUFFER and completion & RESULT:
            # The receive has ended with a reply, as it does where completions have no room.
            self._arrived(completion | MORE)
        elif completion & HAS_BUFFER:
            self._intake.buffers.free(completion >> BUFFER_SHIFT)
        if not completion & RESULT:
            self._to_client(memoryview(b""))
        elif code and code != errno.ENOBUFS:
            self._recover(OSError(code, os.strerror(code)), None)
        self._ring.again(lambda: self._arm_again(key))

    def _arm_again(self, key: int) -> None:
        # Another backend's socket is received from already. Twice with one key would be once too
        # often: to cancel it ends one of the two, and the other keeps the socket.
        if self._sock is not None and self._ring_key == key:
            self._arm()

    def _unsent(self, completion: int) -> None:
        """The kernel has not taken a datagram."""
        data, code = self._uncounted(completion), errno_of(completion)
        if data is None:
            return
        if code == errno.EAGAIN:
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        kept = code != errno.EMSGSIZE and bytes(data) in self._kept
        if self._recover(OSError(code, os.strerror(code)), None if kept else data):
            self._count(data)

    def _too_late(self, kept: tuple[bytes, ...], completion: int) -> None:
        """What comes of the socket that the flow has left, with what was kept for the next one.

        Many datagrams may be refused in one turn, and the first of them has moved the flow.
        """
        if not completion & UNSENT:
            if completion & HAS_BUFFER:
                self._intake.buffers.free(completion >> BUFFER_SHIFT)
            return
        data, code = self._uncounted(completion), errno_of(completion)
        if data is None:
            return
        if code == errno.EAGAIN or code in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
        elif self._sock is None:
            self.counters.drop(DropReason.SEND_FAILED)
        elif bytes(data) in kept:
            self._count(data)
        else:
            self.to_backend(data)

    def _uncounted(self, completion: int) -> memoryview | None:
        """The client's datagram that the kernel has not taken, no longer counted. None: it was a
        reply, and is lost."""
        number, code, counters = completion >> BUFFER_SHIFT, errno_of(completion), self.counters
        if number & REPLY:
            counters.backend_datagrams -= 1
            counters.backend_bytes -= self._intake.counts[number & ~REPLY]
            full = code in RESOURCE_ERRORS or code == errno.EAGAIN
            counters.drop(DropReason.BUFFER_FULL if full else DropReason.SEND_FAILED)
            return None
        data = self._intake.payload(number)
        counters.client_bytes -= len(data)
        counters.client_datagrams -= 1
        return data

    def _count(self, data: memoryview) -> None:
        self.counters.client_bytes += len(data)
        self.counters.client_datagrams += 1


def _unpacked(key: Key) -> tuple[bytes, bytes]:
    """A client's struct sockaddr_in, without its zeros, or sockaddr_in6; and the address that it
    has asked."""
    if isinstance(key, int):
        packed = key.to_bytes(_V4 + 4, "little")
        return packed[:_V4], packed[_V4:]
    assert isinstance(key, bytes)
    return key[:_NAME_V6], key[_NAME_V6:]


def _address(name: bytes) -> Address:
    """The client that a struct sockaddr_in or sockaddr_in6 describes."""
    family, port = struct.unpack_from("=H", name)[0], int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name[4:8]), port
    scope = int.from_bytes(name[24:28], "little" if struct.pack("=H", 1)[0] else "big")
    return socket.inet_ntop(family, name[8:24]), port, 0, scope
