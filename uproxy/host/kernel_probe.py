"""Looks for an address by means of the kernel's neighbour table, which needs no CAP_NET_RAW."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from uproxy.host import netlink
from uproxy.host.links import read_neighbours

DISCARD_PORT: Final = 9  # RFC 863.
_LOOK_EVERY: Final = 0.05
_DESTINATION: Final = 1  # NDA_DST


async def ask_kernel(address: str, interface: str, index: int, patience: float) -> str | None:
    """The link-layer address of the machine on an interface that has an address; None if none
    answers within `patience` seconds, or the kernel cannot be asked."""
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.to_thread(_make_ask, address, interface, index)
        async with asyncio.timeout(patience):
            while True:
                found = await asyncio.to_thread(read_neighbours, index)
                if address in found:
                    return found[address]
                await asyncio.sleep(_LOOK_EVERY)
    return None


def _make_ask(address: str, interface: str, index: int) -> None:
    """Make the kernel ask for an address, whatever it knew before, by a datagram to that address.
    An answer of its machine, for example that the port is closed, does not matter."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    forget_neighbour(address, index)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.sendto(b"", (address, DISCARD_PORT))


def forget_neighbour(address: str, index: int) -> None:
    """Remove what the kernel knows of an address on an interface, if it knows anything: it may be
    out of date. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    body = netlink.NEIGHBOUR.pack(family, index, 0, 0, 0)
    body += netlink.attribute(_DESTINATION, socket.inet_pton(family, address))
    request = netlink.batch(netlink.DELETE_NEIGHBOUR, 0, [body])
    with netlink.netlink() as sock:
        sock.send(request)
        for _ in netlink.failures(sock, 1):
            pass
