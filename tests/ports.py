"""Ports that are free on every loopback address, TCP and UDP."""

from __future__ import annotations

import itertools
import os
import socket
from typing import Final

from tests.isolation import ephemeral_ports

_FIRST: Final = 12000
_END: Final = 30000
_ENOUGH: Final = 2000


def outside(ephemeral: tuple[int, int]) -> tuple[int, int]:
    """Where to take ports from, so that no client takes one in between: the first, and the end."""
    first, last = ephemeral
    for start, end in ((_FIRST, min(_END, first)), (last + 1, 65536)):
        if end - start >= _ENOUGH:
            return start, end
    return _FIRST, _END


# Test processes that run side by side have a share each, unless each has a network of its own.
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_START, _STOP = outside(ephemeral_ports())
_SIZE = (_STOP - _START) // _SHARES
_next = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port that nobody has; each call gives another one."""
    while True:
        port = _START + _SHARE * _SIZE + next(_next) % _SIZE
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with socket.socket(family, kind) as sock:
                try:
                    sock.bind((wildcard, port))
                except OSError:
                    return False
    return True
