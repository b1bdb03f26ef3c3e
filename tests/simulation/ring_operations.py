"""What an io_uring is asked to do, and how it is done."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation.datagrams import DatagramSocket
from tests.simulation.files import ERR, HUP, IN, RDHUP, File, fail
from tests.simulation.streams import WILDCARD, Address, Stream
from tests.simulation.world import Fault, Violation
from uproxy.net import segments

if TYPE_CHECKING:
    from tests.simulation.rings import SimulatedQueues

_OP_POLL_ADD, _OP_SENDMSG, _OP_RECVMSG, _OP_TIMEOUT = 6, 9, 10, 11
OP_ASYNC_CANCEL, _OP_SEND, _OP_RECV = 14, 26, 27
_NAMES: Final = {
    6: "poll", 9: "sendmsg", 10: "recvmsg", 11: "timeout", 14: "cancel", 26: "send", 27: "recv",
}  # fmt: skip
_RECVSEND_POLL_FIRST, _RECV_MULTISHOT = 1, 2
_MSG_WAITALL: Final = 0x100
_MSG_DONTWAIT: Final = 0x40
_MSG_MORE: Final = 0x8000
_TIME: Final = struct.Struct("=qq")
_MESSAGE: Final = struct.Struct("=QQQQQQQ")
_VECTOR: Final = struct.Struct("=QQ")
_OUT: Final = struct.Struct("=IIII")
_CMSG: Final = struct.Struct("=Qii")
_CONTROL: Final = struct.Struct("=QiiI4s4s")
_SEGMENT: Final = struct.Struct("=QiiI4x")
CQE_F_BUFFER, CQE_F_MORE = 1, 2
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Issued:
    """A struct io_uring_sqe."""

    opcode: int
    flags: int
    priority: int
    fd: int
    offset: int
    address: int
    length: int
    operation_flags: int
    user_data: int
    bgid: int
    personality: int
    rest: int
    """Length of an address, or limit of a receive."""

    def is_done(self, result: int) -> bool:
        """Whether a result is a success: with MSG_WAITALL, a short send is none."""
        if self.opcode == _OP_SEND and self.operation_flags & _MSG_WAITALL:
            return result == self.length
        return result >= 0

    def __str__(self) -> str:
        text = _NAMES.get(self.opcode, str(self.opcode))
        if self.opcode == OP_ASYNC_CANCEL:
            return f"cancel {self.address & (1 << 44) - 1}"
        return f"{text} fd {self.fd} len {self.length}"


class Operation:
    """One that is under way. It holds its file."""

    def __init__(self, queues: SimulatedQueues, entry: Issued, file: File | None) -> None:
        self.queues = queues
        self.entry = entry
        self.file = file
        self.cancelled = False
        queues.armed[self] = None
        if file is not None:
            file.take()
            file.waiters[self] = self._happened

    def run(self) -> None:
        """Do what can be done."""
        if self.cancelled:
            self.finish(-errno.ECANCELED)
        else:
            self.go_on()

    def go_on(self) -> None:
        raise NotImplementedError

    def concerns(self, events: int) -> bool:
        return True

    def finish(self, result: int, flags: int = 0, bid: int = 0) -> None:
        self.queues.complete(self.entry.user_data, result, flags, bid)
        self.queues.disarm(self)

    def let_go(self) -> None:
        if self.file is not None:
            file, self.file = self.file, None
            file.waiters.pop(self, None)
            file.give_back()

    def _happened(self, events: int) -> None:
        if not events or self.concerns(events):
            self.queues.happened(self)


class Poll(Operation):
    def concerns(self, events: int) -> bool:
        return bool(events & (self.entry.operation_flags | ERR | HUP))

    def go_on(self) -> None:
        assert self.file is not None
        events = self.file.poll() & (self.entry.operation_flags | ERR | HUP)
        if events:
            self.finish(events)


class Timeout(Operation):
    def go_on(self) -> None:
        self.finish(-errno.ETIME)


class Receive(Operation):
    """A multishot receive: each completion has a buffer, and says whether more will follow."""

    def __init__(self, queues: SimulatedQueues, entry: Issued, file: File) -> None:
        super().__init__(queues, entry, file)
        self._once = not entry.priority & _RECV_MULTISHOT
        self._limit = entry.rest or sys.maxsize
        """Bytes after which it ends."""

    def concerns(self, events: int) -> bool:
        return bool(events & (IN | ERR | HUP | RDHUP))

    def go_on(self) -> None:
        world = self.queues.world
        for _ in range(_BATCH):
            assert self.file is not None
            if not self.file.poll() & (IN | ERR | HUP | RDHUP):
                return
            group = self.queues.buffer_rings[self.entry.bgid]
            offered = None if world.chance(Fault.NO_BUFFERS) else group.take()
            if offered is None:
                self.finish(-errno.ENOBUFS)
                return
            address, size, bid = offered
            try:
                data = self.take(size)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    if isinstance(self.file, Stream):
                        self.file.by_ring.refused = True
                    self.finish(-(error.errno or errno.EIO))
                return
            if not data and not self.keeps_empty:
                self.finish(0)
                return
            if isinstance(self.file, Stream):
                self.file.by_ring.fill(len(data), size)
            group.lend(bid)
            ctypes.memmove(address, data, len(data))
            self._limit -= len(data)
            last = self._once or self._limit <= 0 or self.queues.crowded
            if last or world.chance(Fault.RECEIVE_ENDS):
                self.finish(len(data), CQE_F_BUFFER, bid)
                return
            self.queues.complete(self.entry.user_data, len(data), CQE_F_BUFFER | CQE_F_MORE, bid)
        self.queues.happened(self)

    keeps_empty = False

    def take(self, most: int) -> bytes:
        """Raises OSError."""
        if isinstance(self.file, Stream):
            return self.file.receive(most)
        assert isinstance(self.file, DatagramSocket)
        return self.file.receive().data[:most]


class ReceiveMessage(Receive):
    """The same with names and control data, in front of each datagram."""

    keeps_empty = True

    def __init__(self, queues: SimulatedQueues, entry: Issued, file: File) -> None:
        super().__init__(queues, entry, file)
        header = _MESSAGE.unpack(ctypes.string_at(entry.address, _MESSAGE.size))
        self._name_room, self._control_room = header[1] & 0xFFFF_FFFF, header[5]

    def take(self, most: int) -> bytes:
        assert isinstance(self.file, DatagramSocket)
        message = self.file.receive(several=True)
        name = packed(message.source).ljust(self._name_room, b"\0")[: self._name_room]
        control = b""
        if message.size:
            control += _SEGMENT.pack(20, segments.SOL_UDP, segments.UDP_GRO, message.size)
        if self.file.local[0] == WILDCARD and not self.file.dialed:
            address = socket.inet_aton(message.target[0])
            control += _CONTROL.pack(28, socket.IPPROTO_IP, 8, 0, address, address) + bytes(4)
        if len(control) > self._control_room:
            raise Violation("control data is cut off")
        out = _OUT.pack(16, len(control), len(message.data), 0)
        whole = out + name + control.ljust(self._control_room, b"\0") + message.data
        if len(whole) > most:
            raise Violation("a datagram is cut off")
        return whole


def start(queues: SimulatedQueues, entry: Issued) -> int | None:
    """Begin what an entry asks for. The result, or None if it is reported later."""
    if entry.opcode == _OP_TIMEOUT:
        seconds, nanoseconds = _TIME.unpack(ctypes.string_at(entry.address, 16))
        timeout = Timeout(queues, entry, None)
        world = queues.world
        when = max(seconds + nanoseconds / 1e9, world.now)
        world.after(when - world.now, lambda: _due(timeout))
        return None
    try:
        file = queues.descriptors.find(entry.fd)
    except OSError:
        return -errno.EBADF
    try:
        return _start(queues, entry, file)
    except OSError as error:
        return -(error.errno or errno.EIO)


def _due(timeout: Timeout) -> None:
    if timeout in timeout.queues.armed:
        timeout.queues.happened(timeout)


def _start(queues: SimulatedQueues, entry: Issued, file: File) -> int | None:
    if entry.operation_flags & _MSG_MORE and entry.opcode not in (_OP_SEND, _OP_SENDMSG):
        raise Violation(f"{entry} has flags of something else")
    if entry.opcode == _OP_POLL_ADD:
        Poll(queues, entry, file).go_on()
    elif entry.opcode == _OP_RECV:
        if not isinstance(file, Stream | DatagramSocket):
            raise fail(errno.ENOTSOCK)
        if entry.rest and not queues.limits:
            raise fail(errno.EINVAL)
        _receive(Receive(queues, entry, file))
    elif entry.opcode == _OP_RECVMSG:
        if not isinstance(file, DatagramSocket):
            raise fail(errno.ENOTSOCK)
        _receive(ReceiveMessage(queues, entry, file))
    elif entry.opcode == _OP_SEND:
        return _send(entry, file)
    elif entry.opcode == _OP_SENDMSG:
        return _send_message(entry, file)
    else:
        raise Violation(f"operation {entry.opcode} is not known")
    return None


def _receive(receive: Receive) -> None:
    if receive.entry.priority & _RECVSEND_POLL_FIRST:
        assert receive.file is not None
        if receive.file.poll() & (IN | ERR | HUP | RDHUP):
            receive.queues.happened(receive)
    else:
        receive.go_on()


def _send(entry: Issued, file: File) -> int:
    data = ctypes.string_at(entry.address, entry.length)
    if isinstance(file, DatagramSocket):
        target = None
        if entry.offset:
            target = unpacked(ctypes.string_at(entry.offset, entry.rest & 0xFFFF))
        return file.send(data, target)
    if not isinstance(file, Stream):
        raise fail(errno.ENOTSOCK)
    if not entry.operation_flags & _MSG_DONTWAIT:
        raise Violation("a send that may wait in the kernel")
    file.by_ring.refused = True
    sent = file.send(data, more=bool(entry.operation_flags & _MSG_MORE))
    file.by_ring.refused = sent < len(data)
    return sent


def _send_message(entry: Issued, file: File) -> int:
    assert isinstance(file, DatagramSocket)
    name, name_length, vectors, count, control, control_length, _ = _MESSAGE.unpack(
        ctypes.string_at(entry.address, _MESSAGE.size)
    )
    source, segment, at = None, 0, 0
    ancillary = ctypes.string_at(control, control_length)
    while at < control_length:
        size, level, kind = _CMSG.unpack_from(ancillary, at)
        if (level, kind) == (segments.SOL_UDP, segments.UDP_SEGMENT):
            (segment,) = struct.unpack_from("=H", ancillary, at + 16)
        else:
            fields = _CONTROL.unpack_from(ancillary, at)
            source = (socket.inet_ntoa(fields[4]), file.local[1])
        at += size + 7 & ~7
    data = b""
    for index in range(count):
        address, length = _VECTOR.unpack(ctypes.string_at(vectors + 16 * index, 16))
        data += ctypes.string_at(address, length)
    target = unpacked(ctypes.string_at(name, name_length & 0xFFFF_FFFF)) if name else None
    return file.send(data, target, source, segment)


def packed(address: Address) -> bytes:
    """A struct sockaddr_in."""
    return (
        struct.pack("=H", socket.AF_INET)
        + address[1].to_bytes(2, "big")
        + socket.inet_aton(address[0])
        + bytes(8)
    )


def unpacked(name: bytes) -> Address:
    if len(name) < 8 or struct.unpack_from("=H", name)[0] != socket.AF_INET:
        raise Violation(f"{name!r} is no address of a client")
    return socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big")
