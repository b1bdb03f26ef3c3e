"""Observes uproxy from outside: whether it is ready and responsive, and which backend answers."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_STEP = 0.002
"""Seconds between two requests."""
_READY_STEP = 0.02
"""The same for /readyz."""


class Health:
    """One connection to the health port, over which requests follow each other."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str) -> tuple[int, float]:
        """Status, 0 for no answer, and the seconds that it took."""
        began = time.monotonic()
        try:
            self._http.request("GET", path)
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            return 0, 0.0
        return answer.status, time.monotonic() - began

    def close(self) -> None:
        self._http.close()


class Startup:
    """How the start went."""

    def __init__(self) -> None:
        self.ready = 0.0
        """Seconds until /readyz was green."""
        self.stall = 0.0
        """Seconds that the longest answer of /livez took meanwhile."""


def watch_start(port: int, began: float, patience: float, alive: Callable[[], bool]) -> Startup:
    """Ask until it is ready. Raises TimeoutError where it is not, or is not alive."""
    health, found, asked = Health(port), Startup(), 0.0
    try:
        while alive() and (now := time.monotonic()) - began < patience:
            status, took = health.ask("/livez")
            found.stall = max(found.stall, took)
            if status and now - asked > _READY_STEP:
                asked = now
                if health.ask("/readyz")[0] == 200:
                    found.ready = time.monotonic() - began
                    return found
            time.sleep(_STEP)
    finally:
        health.close()
    raise TimeoutError(f"not ready after {time.monotonic() - began:.1f} s")


class Backend:
    """A backend that sends its name, one letter, to each client."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._server = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        port: int = self._server.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                with client:
                    client.sendall(self._name)


def answers(address: str, port: int) -> bytes:
    """The name of the backend that one connection reaches, b"" for none."""
    with suppress(OSError), socket.create_connection((address, port), 5) as sock:
        return sock.recv(1)
    return b""


def until_answered_by(name: bytes, address: str, port: int, patience: float = 10.0) -> float:
    """Connect until this backend answers; returns when the connection was begun that reached it."""
    deadline = time.monotonic() + patience
    while (began := time.monotonic()) < deadline:
        if answers(address, port) == name:
            return began
        time.sleep(_STEP / 2)
    raise TimeoutError(f"{address}:{port} does not reach {name!r}")
