"""Addresses and ports that the benchmark uses, all of them on loopback."""

from __future__ import annotations

import itertools
import os
import socket
from typing import NamedTuple

_FIRST, _LAST = 2000, 9999
"""Below every usual range of ephemeral ports, so that no client takes one meanwhile."""
_turn = itertools.count(os.getpid() * 61)


class Place(NamedTuple):
    """Where something listens. A plain tuple too, so that sockets take it as an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Service(NamedTuple):
    """Something that every peer makes reachable."""

    name: str
    protocol: str
    """"TCP" or "UDP"."""
    backend: Place


def free_place(host: str = "127.0.0.1") -> Place:
    """A port that is free for TCP and UDP; each call returns a different one."""
    for _ in range(_LAST - _FIRST):
        place = Place(host, _FIRST + next(_turn) % (_LAST - _FIRST))
        if _is_free(place):
            return place
    raise OSError(f"no free port between {_FIRST} and {_LAST} on {host}")


def _is_free(place: Place) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(place)
            except OSError:
                return False
    return True
