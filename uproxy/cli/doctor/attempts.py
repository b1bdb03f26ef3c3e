"""What this machine allows, found out by trying it. Nothing is changed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable


def failure(attempt: Callable[[], object]) -> str:
    """Why something does not work; "" if it does."""
    try:
        attempt()
    except (OSError, AttributeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def try_splice() -> None:
    reader, writer = os.pipe()
    left, right = socket.socketpair()
    with left, right:
        try:
            left.send(b"x")
            os.splice(right.fileno(), writer, 1)
        finally:
            os.close(reader)
            os.close(writer)


def try_reuse_port() -> None:
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())


def try_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))


def try_transparent() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)


def is_taken(port: int) -> bool:
    """Whether a program has a TCP port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
