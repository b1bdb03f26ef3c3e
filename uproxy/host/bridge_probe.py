"""Tries out whether replies between two pods of a bridge can be brought up to this node.

A TCP connection is attempted from the address of one pod to the other. Usually nothing listens on
the port, so the answer is a reset; what matters is that there is one.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from uproxy.net.client_ports import CLIENT_PORTS, PROBE_PORT

_TIMEOUT: Final = 2.5
"""Seconds. Where a SYN is lost, the kernel sends another one after 1 s."""
_IPV6_TRANSPARENT: Final = 75  # Not in Python's socket module.
_ANSWERS: Final = frozenset((0, errno.ECONNREFUSED))
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close(2) sends a reset, not a FIN.


def replies_come_back(client: str, backend: str) -> bool | None:
    """Whether replies of `backend` to `client`, both of them pods of a bridge of this node, come up
    to this node. None: there is no telling, since the backend does not answer this node either.
    Takes up to 2.5 s. Raises OSError."""
    with ExitStack() as stack:
        as_client = stack.enter_context(_new_socket(backend))
        as_node = stack.enter_context(_new_socket(backend))
        _bind(as_client, client)
        for sock in (as_client, as_node):
            sock.connect_ex((backend, PROBE_PORT))
        answered = _answers({as_client: "client", as_node: "node"})
    if "client" in answered:
        return True
    return False if "node" in answered else None


def _new_socket(address: str) -> socket.socket:
    domain = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(domain, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return sock


def _bind(sock: socket.socket, address: str) -> None:
    """Any port of those for pods' addresses."""
    ipv6 = sock.family == socket.AF_INET6
    level, option = (
        (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT) if ipv6 else (socket.SOL_IP, socket.IP_TRANSPARENT)
    )
    sock.setsockopt(level, option, 1)
    sock.bind((address, random.choice(CLIENT_PORTS)))


def _answers(waiting: Mapping[socket.socket, str]) -> Sequence[str]:
    """Which of the sockets got an answer. Once the pod's did, the other one does not matter."""
    poll = select.poll()
    open_ = {sock.fileno(): sock for sock in waiting}
    for number in open_:
        poll.register(number, select.POLLOUT)
    found: list[str] = []
    deadline = time.monotonic() + _TIMEOUT
    while open_ and "client" not in found and (left := deadline - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            poll.unregister(number)
            sock = open_.pop(number)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _ANSWERS:
                found.append(waiting[sock])
    return found
