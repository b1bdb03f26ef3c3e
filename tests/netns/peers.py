"""Pods and clients in namespaces: sockets of this process, served by threads."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.netns.kit import Namespace, Place, family_of

REFUSED = "refused"
RESET = "reset"
SILENCE = "silence"
UNREACHABLE = "unreachable"
LONG = 1000
"""Bytes of a datagram that is not just a question."""


class Pod:
    """A TCP and UDP server on one port at both addresses of a place.

    Its answer is its name and the client's address as it sees it. TCP says so once, then echoes;
    UDP answers each datagram, and echoes one that is longer than LONG after that.
    """

    def __init__(self, name: str, place: Place, port: int) -> None:
        self.name = name
        self.place = place
        self.port = port
        self.seen: list[tuple[str, str, int]] = []
        """Protocol, address and port of clients, in order."""
        self._closed = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        try:
            for address in (place.ipv4, place.ipv6):
                self._serve(address, socket.SOCK_STREAM, self._accept)
                self._serve(address, socket.SOCK_DGRAM, self._answer)
        except OSError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Pod {self.name} at {self.place.ipv4}, {self.place.ipv6}>"

    def close(self) -> None:
        self._closed = True
        for sock in tuple(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        # A socket that a thread waits for stays in the kernel until it has woken up.
        for thread in self._threads:
            thread.join(15)

    def _serve(self, address: str, kind: int, target: object) -> None:
        sock = self.place.space.socket(family_of(address), kind)
        self._sockets.append(sock)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, self.port))
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
        thread = threading.Thread(target=target, args=(sock,), daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, client = listener.accept()
                if self._closed:
                    sock.close()
                    return
                self.seen.append(("TCP", client[0], client[1]))
                self._sockets.append(sock)
                threading.Thread(target=self._talk, args=(sock, client), daemon=True).start()

    def _talk(self, sock: socket.socket, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError), sock:
            sock.sendall(f"{self.name} {client[0]}\n".encode())
            while data := sock.recv(65536):
                sock.sendall(data)

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._closed:
                data, client = sock.recvfrom(65536)
                if client is None or self._closed:
                    return  # Shut down.
                self.seen.append(("UDP", client[0], client[1]))
                answer = f"{self.name} {client[0]}\n".encode()
                sock.sendto(answer + data if len(data) > LONG else answer, client)


@contextmanager
def pod(name: str, place: Place, port: int = 8080) -> Iterator[Pod]:
    """A pod that is gone at the end."""
    running = Pod(name, place, port)
    try:
        yield running
    finally:
        running.close()


def ask(
    space: Namespace,
    protocol: str,
    address: str,
    port: int,
    *,
    source: str = "",
    patience: float = 15,
) -> str:
    """The reply to a client in `space` from an address: "NAME CLIENT", or why there is none.

    REFUSED: no process listens. RESET: TCP only, accepted and aborted (a connection that is ended
    without a word is "closed"). UNREACHABLE: a router knows no
    way. SILENCE: nothing came within `patience` seconds.
    """
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with space.socket(family_of(address), kind) as sock:
        sock.settimeout(patience)
        if source:
            sock.bind((source, 0))
        try:
            sock.connect((address, port))
            if protocol == "UDP":
                sock.send(b"hello")
            return sock.recv(65536).decode().strip() or "closed"
        except ConnectionRefusedError:
            return REFUSED
        except ConnectionResetError:
            return RESET
        except TimeoutError:
            return SILENCE
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return UNREACHABLE
            raise
        finally:
            if protocol == "TCP":
                # No TIME_WAIT: hundreds of rows ask the same address.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def ping(space: Namespace, address: str, *, patience: float = 15) -> str:
    """The address that answers an ICMP echo request, or SILENCE."""
    family = family_of(address)
    protocol, request, reply = (
        (socket.IPPROTO_ICMPV6, 128, 129)
        if family == socket.AF_INET6
        else (socket.IPPROTO_ICMP, 8, 0)
    )
    body = struct.pack("!HH", os.getpid() & 0xFFFF, 1)
    # The kernel computes the checksum of ICMPv6; this one is right for ICMP.
    checksum = 0xFFFF ^ _folded(request << 8, *struct.unpack("!HH", body))
    with space.inside():
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
    with sock:
        sock.settimeout(patience)
        sock.sendto(struct.pack("!BBH", request, 0, checksum) + body, (address, 0))
        try:
            while True:
                data, sender = sock.recvfrom(2048)
                message = data if family == socket.AF_INET6 else data[(data[0] & 15) * 4 :]
                if message[0] == reply and message[4:8] == body:
                    return str(sender[0])
        except TimeoutError:
            return SILENCE


def _folded(*words: int) -> int:
    total = sum(words)
    return (total & 0xFFFF) + (total >> 16)


def asked(space: Namespace, protocol: str, address: str, port: int, *, times: int) -> set[str]:
    """Names (without the client's address) that so many askings lead to."""
    return {ask(space, protocol, address, port).split()[0] for _ in range(times)}
