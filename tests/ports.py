"""Ports that are free on every loopback address, TCP and UDP."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _LAST = 12000, 30000
"""Below the range of ephemeral ports, so that no client takes one in between."""

# Test processes that run side by side have a share each.
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SIZE = (_LAST - _FIRST) // _SHARES
_next = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port that nobody has; each call gives another one."""
    while True:
        port = _FIRST + _SHARE * _SIZE + next(_next) % _SIZE
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
