"""Sockets of the kernel in plain Python, and the calls that make them."""

from __future__ import annotations

import array
import errno
import os
import socket as real
from collections.abc import Iterable
from typing import Any, Final

from tests.faults.kernel import ROOM, File, Kernel, Process, current
from uproxy.net.sockets import SocketCalls

_INTERNET: Final = (real.AF_INET, real.AF_INET6)
_MOST: Final = 253
"""SCM_MAX_FD"""


class Socket:
    """As much of socket.socket as is used."""

    def __init__(self, kernel: Kernel, file: File, number: int | None = None) -> None:
        self._kernel = kernel
        self._owner: Process = current.get()
        self.family = file.family
        self.type = file.kind
        self.file = file
        self._number = self._owner.install(file) if number is None else number

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            self._owner.close(number)

    def detach(self) -> int:
        number, self._number = self._number, -1
        return number

    def dup(self) -> Socket:
        self._call("dup", self.file.place)
        return Socket(self._kernel, self._open())

    def setblocking(self, flag: bool) -> None:
        self._open()

    def settimeout(self, seconds: float | None) -> None:
        self._open()

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self._call("setsockopt", option)
        self._open().options[level, option] = value

    def bind(self, place: tuple[str, int]) -> None:
        self._call("bind", f"{place[0]}:{place[1]}")
        self._kernel.bind(self._open(), place)

    def listen(self, backlog: int = 128) -> None:
        self._call("listen", self.file.place)
        self._open().listening = True

    def shutdown(self, how: int) -> None:
        self._call("shutdown", self.file.place)
        if not self._open().listening:
            raise _error(errno.ENOTCONN)
        self.file.listening = False

    def send(self, data: Any) -> int:
        self._call("send", len(data))
        return self._put(data, [])

    def sendmsg(self, parts: Iterable[Any], ancillary: Iterable[tuple[int, int, Any]] = ()) -> int:
        self._call("sendmsg")
        files = []
        for _, _, numbers in ancillary:
            files += [self._owner.files[number] for number in array.array("i", bytes(numbers))]
        if len(files) > _MOST:
            raise _error(errno.EINVAL)
        return self._put(b"".join(map(bytes, parts)), files)

    def recvmsg(
        self, size: int, room: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        self._call("recvmsg")
        file = self._open()
        if not file.arrived:
            if file.peer is not None and file.peer.copies:
                raise _error(errno.EAGAIN)
            return b"", [], 0, None
        numbers: array.array[int] = array.array("i")
        data, cut = b"", False
        while file.arrived and len(data) < size and not (data and file.arrived[0][1]):
            some, attached = file.arrived.popleft()
            taken, rest = some[: size - len(data)], some[size - len(data) :]
            data += taken
            cut = self._take(attached, numbers) or cut
            if rest:
                file.arrived.appendleft((rest, []))
            if attached:
                break
        rights = [(real.SOL_SOCKET, real.SCM_RIGHTS, numbers.tobytes())] if numbers else []
        return data, rights, real.MSG_CTRUNC if cut else 0, None

    def _take(self, attached: list[File], numbers: array.array[int]) -> bool:
        """Install what came along; whether not everything could be."""
        cut = False
        for each in attached:
            try:
                if cut or self._kernel.cuts(self._owner):
                    raise _error(errno.EMFILE)
                numbers.append(self._owner.install(each))
            except OSError:
                cut = True
            self._kernel.drop(each)
        return cut

    def _put(self, data: Any, files: list[File]) -> int:
        peer = self._open().peer
        assert peer is not None
        if not peer.copies:
            raise _error(errno.EPIPE)
        room = ROOM - peer.waiting
        if room <= 0:
            raise _error(errno.EAGAIN)
        taken = bytes(data)[: self._kernel.portion(min(room, len(data)))]
        for each in files:
            each.copies += 1
        peer.arrived.append((taken, files))
        return len(taken)

    def _call(self, kind: str, subject: object = "") -> None:
        self._kernel.call(kind, subject)

    def _open(self) -> File:
        if self._number < 0:
            raise _error(errno.EBADF)
        return self.file


def socket_calls(kernel: Kernel) -> SocketCalls:
    """Calls that make sockets of this kernel, for whichever process calls them."""

    def new_socket(family: int, kind: int) -> Any:
        kernel.call("socket")
        assert family in _INTERNET, family
        return Socket(kernel, File(family, kind))

    def socketpair() -> Any:
        kernel.call("socketpair")
        one, other = (File(real.AF_UNIX, real.SOCK_STREAM) for _ in range(2))
        one.peer, other.peer = other, one
        first = Socket(kernel, one)
        try:
            return first, Socket(kernel, other)
        except OSError:
            first.close()
            raise

    def descriptor_limit() -> int:
        process = current.get()
        return process.first + process.limit

    return SocketCalls(
        new_socket=new_socket,
        socketpair=socketpair,
        close=lambda number: current.get().close(number),
        raise_descriptor_limit=descriptor_limit,
        descriptor_limit=descriptor_limit,
    )


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
