"""Backends for end-to-end tests: real sockets, served by threads, each answers with its name."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pod:
    """A TCP and UDP backend on one port. Over TCP it sends its name, then echoes."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._tcp = socket.create_server((address, 0), backlog=1024)
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, self.port))
        self._open: set[socket.socket] = set()
        self.clients: list[str] = []
        """Addresses that TCP connections came from, in order."""
        for target in (self._accept, self._answer):
            threading.Thread(target=target, daemon=True).start()

    def close(self) -> None:
        for sock in (self._tcp, self._udp, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, (client, _) = self._tcp.accept()
                self.clients.append(client)
                self._open.add(sock)
                threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            sock.sendall(f"{self.name}\n".encode())
            while data := sock.recv(65536):
                sock.sendall(data)
        self._open.discard(sock)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self._udp.recvfrom(65536)
                if client is None:
                    return  # Shut down.
                self._udp.sendto(f"{self.name} ".encode() + data, client)


@contextmanager
def pod(name: str, address: str = "127.0.0.1") -> Iterator[Pod]:
    """A pod that is gone at the end."""
    running = Pod(name, address)
    try:
        yield running
    finally:
        running.close()


def visit(address: str, port: int) -> str:
    """Connect, and return the name of the pod that answers."""
    with socket.create_connection((address, port), 20) as sock:
        return read_line(sock)


def read_line(sock: socket.socket) -> str:
    """One line; "" if the connection ends first."""
    sock.settimeout(20)
    line = b""
    while not line.endswith(b"\n"):
        more = sock.recv(1)
        if not more:
            break
        line += more
    return line.decode().strip()


def ask(address: str, port: int, text: str = "hello", patience: float = 20) -> str:
    """Send a datagram from a new socket, and return the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience)
        sock.connect((address, port))
        sock.send(text.encode())
        return sock.recv(65536).decode()
