"""Routes in the main table, from which a routing daemon learns that this node serves an address.

`ip route add 192.0.2.7/32 dev lo proto 117` changes nothing for the packets of this node: the claim
of the same address, in the table "local", is looked up first. Routing daemons do not read that
table, but take the routes of other programs from the main one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uproxy.host import our_routes
from uproxy.host.our_routes import EXPORT


def add_exports(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Export addresses; returns those that failed, with the reason. Where the main table has a
    route to the address already, that counts as done, although it may be another program's;
    `held_exports` tells. Raises OSError if netlink cannot be used at all."""
    return our_routes.add_routes(EXPORT, addresses)


def withdraw_exports(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Remove exports of ours, and no other routes; as above. A missing one counts as done."""
    return our_routes.delete_routes(EXPORT, addresses)


def held_exports() -> frozenset[str]:
    """The addresses that are exported, whichever process did it. Raises OSError."""
    return our_routes.held_routes(EXPORT)


def remove_exports() -> Sequence[str]:
    """Remove every export of ours, whichever process has made it; returns the addresses. Raises
    OSError, of which Locked means that a running uproxy needs them."""
    return our_routes.remove_all_routes(EXPORT)
