"""What _socket.socket is to Python, for the simulated process."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, Final

from tests.simulation.datagrams import DatagramSocket
from tests.simulation.files import Descriptors, File, fail
from tests.simulation.network import Network
from tests.simulation.streams import NODE, NOWHERE, Address, Listening, Stream
from tests.simulation.world import Fault, Violation, World
from uproxy.net import segments

_NO_LINGER: Final = struct.pack("ii", 1, 0)
_IP_PKTINFO: Final = 8
_SO_MEMINFO: Final = 55


class Sockets:
    """Makes them, for one process."""

    def __init__(self, world: World, descriptors: Descriptors, network: Network) -> None:
        self.world = world
        self.descriptors = descriptors
        self.network = network

    def new(self, family: int, kind: int, proto: int = 0, fileno: int | None = None) -> Socket:
        if fileno is not None:
            return Socket(self, fileno, family)
        self.world.call()
        self.descriptors.room()
        file: File
        if kind & 0xF == socket.SOCK_STREAM:
            file = self.network.stream("a new stream")
            file.blocking = not kind & socket.SOCK_NONBLOCK
        else:
            file = DatagramSocket(self.world, self.network, "a new UDP socket", receives=212_992)
        return Socket(self, self.descriptors.install(file), family)

    def adopt(self, fileno: int) -> Socket:
        return Socket(self, fileno, socket.AF_INET)


class Socket:
    """A descriptor, and the calls that Python has for it."""

    def __init__(self, sockets: Sockets, fd: int, family: int) -> None:
        self.family = family
        self.file = sockets.descriptors.find(fd)
        self._sockets = sockets
        self._world = sockets.world
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._world.call()
            self._sockets.descriptors.close(fd)

    def setblocking(self, flag: bool) -> None:
        self._open()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        file = self._open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            assert isinstance(file, Stream)
            file.hard = value == _NO_LINGER
        elif (level, option) == (segments.SOL_UDP, segments.UDP_GRO):
            assert isinstance(file, DatagramSocket)
            if self._world.chance(Fault.OPTION_FAILS):
                raise fail(errno.ENOPROTOOPT)
            file.merges = bool(value)
        elif isinstance(file, Stream) and self._world.chance(Fault.OPTION_FAILS):
            raise fail(errno.ENOBUFS)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        file = self._open()
        assert isinstance(file, Stream)
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            code, file.error = file.error, 0
            return code
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO):
            if self._world.chance(Fault.OPTION_FAILS):
                raise fail(errno.ENOBUFS)
            return bytes(size)
        assert (level, option) == (socket.SOL_SOCKET, _SO_MEMINFO)
        numbers = (
            len(file.inbox),
            file.receives,
            len(file.outbox),
            file.sends,
            0,
            len(file.outbox),
        )
        return struct.pack("=6I", *numbers)[:size]

    def getsockname(self) -> Address:
        file = self._open()
        assert isinstance(file, Stream | DatagramSocket)
        return file.local

    def getpeername(self) -> Address:
        file = self._open()
        assert isinstance(file, Stream)
        if file.was_reset:
            raise fail(errno.ENOTCONN)
        return file.remote

    def connect_ex(self, address: Address) -> int:
        """The errno."""
        file = self._open()
        self._world.call()
        code = self._cannot_connect(file)
        if code:
            return code
        if isinstance(file, DatagramSocket):
            self._connect_datagrams(file, address)
            return 0
        assert isinstance(file, Stream)
        if file.local != NOWHERE and self._sockets.network.is_taken(file.local, address):
            return errno.EADDRNOTAVAIL
        file.name = f"{self._fd} to {address[0]}:{address[1]}"
        self._sockets.network.dial(file, address)
        if self._world.trace is not None:
            self._world.note("proxy", f"connect {file.name}")
        return errno.EINPROGRESS

    def connect(self, address: Address) -> None:
        code = self.connect_ex(address)
        if code:
            raise fail(code)

    def bind(self, address: Address) -> None:
        """To the address of a pod: only sockets towards backends are bound by this process."""
        file = self._open()
        self._world.call()
        if isinstance(file, DatagramSocket):
            if address in self._sockets.network.sockets:
                raise fail(errno.EADDRINUSE)
            self._sockets.network.bind(file, address)
        else:
            assert isinstance(file, Stream)
            file.local = address

    def shutdown(self, how: int) -> None:
        file = self._open()
        self._world.call()
        assert isinstance(file, Stream)
        assert how == socket.SHUT_WR
        if self._world.trace is not None:
            self._world.note("proxy", f"shutdown {file.name}")
        file.end()

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        file = self._open()
        self._world.call()
        if isinstance(file, DatagramSocket):
            return file.send(bytes(data))
        assert isinstance(file, Stream)
        self._no_wait(file, flags)
        sent = file.send(data, more=bool(flags & socket.MSG_MORE))
        if self._world.trace is not None:
            self._world.note("proxy", f"send {len(data)} to {file.name}: {sent}")
        return sent

    def sendto(self, data: bytes | memoryview, address: Address) -> int:
        return self._datagrams().send(bytes(data), address)

    def sendmsg(
        self,
        vectors: list[Any],
        control: list[Any],
        flags: int = 0,
        address: Address | None = None,
    ) -> int:
        source, segment = None, 0
        for level, kind, data in control:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                source = (socket.inet_ntoa(data[4:8]), self._datagrams().local[1])
            elif (level, kind) == (segments.SOL_UDP, segments.UDP_SEGMENT):
                (segment,) = struct.unpack("=H", data)
        return self._datagrams().send(b"".join(map(bytes, vectors)), address, source, segment)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        file = self._open()
        self._world.call()
        view = memoryview(buffer)
        if isinstance(file, DatagramSocket):
            data = file.receive().data
            if file.remote is not None and len(data) > len(view):
                raise Violation("a datagram is cut off")
            data = data[: len(view)]
        else:
            assert isinstance(file, Stream)
            self._no_wait(file, flags)
            data = file.receive(size or len(view))
            if self._world.trace is not None:
                self._world.note("proxy", f"recv from {file.name}: {len(data)}")
        view[: len(data)] = data
        return len(data)

    def recvfrom_into(self, buffer: Any) -> tuple[int, Address]:
        message = self._datagrams().receive()
        memoryview(buffer)[: len(message.data)] = message.data
        return len(message.data), message.source

    def recvmsg_into(
        self, buffers: list[Any], space: int
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Address]:
        message = self._datagrams().receive()
        memoryview(buffers[0])[: len(message.data)] = message.data
        info = bytes(4) + socket.inet_aton(message.target[0]) * 2
        return len(message.data), [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, message.source

    def _accept(self) -> tuple[int, Address]:
        file = self._open()
        self._world.call()
        assert isinstance(file, Listening)
        if file.listens and file.waiting:
            self._sockets.descriptors.room()
            if self._world.chance(Fault.ACCEPT_FAILS):
                raise fail(errno.ECONNABORTED)
        stream = file.accept()
        fd = self._sockets.descriptors.install(stream)
        stream.give_back()
        stream.accepted = self._world.now
        stream.name = f"{fd} of client {stream.remote[1]}"
        if self._world.trace is not None:
            self._world.note("proxy", f"accept {stream.name}")
        return fd, stream.remote

    def _open(self) -> File:
        """What the number refers to, as the kernel sees it."""
        if self._fd < 0:
            raise fail(errno.EBADF)
        return self.file

    def _no_wait(self, file: Stream, flags: int) -> None:
        if file.blocking and not flags & socket.MSG_DONTWAIT:
            raise Violation(f"a call waits for {file.name}")

    def _datagrams(self) -> DatagramSocket:
        file = self._open()
        self._world.call()
        assert isinstance(file, DatagramSocket)
        return file

    def _cannot_connect(self, file: File) -> int:
        chance = self._world.chance
        if chance(Fault.NO_SOCKET_MEMORY):
            return errno.ENOBUFS
        if chance(Fault.NO_PORT):
            return errno.EAGAIN if isinstance(file, DatagramSocket) else errno.EADDRNOTAVAIL
        return errno.ENETUNREACH if chance(Fault.NO_ROUTE) else 0

    def _connect_datagrams(self, file: DatagramSocket, address: Address) -> None:
        network = self._sockets.network
        file.remote = address
        file.dialed = True
        if file.local == NOWHERE:
            network.bind(file, (NODE, network.port()))
        file.name = f"{self._fd} to {address[0]}:{address[1]}/UDP"
