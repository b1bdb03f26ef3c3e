"""The addresses of this node, read through netlink.

pyroute2 is used through its synchronous classes and in a thread: its asyncio core opens netlink
sockets in a way that uvloop refuses (svinota/pyroute2#1335).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any


async def local_addresses() -> frozenset[str]:
    """Every address of every interface, loopback included, in canonical form.

    Link-local IPv6 addresses are left out: without their zone they name nothing.
    """
    return await asyncio.to_thread(_read_addresses)


def _read_addresses() -> frozenset[str]:
    # Imported late: 0.4 s of CPU that need not delay the first listeners.
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        return frozenset(_addresses(netlink.get_addr()))


def _addresses(messages: Any) -> Iterator[str]:
    for message in messages:
        # On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL is ours where it exists.
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if address and not address.startswith("fe80:"):
            yield address
