"""Claims in the kernel: routes of type "local", which make an address one of this node's.

After `ip route add local 192.0.2.7/32 dev lo proto 117` the kernel accepts packets to that address,
and a socket can be bound to it, although no interface has it (AnyIP).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uproxy.host import our_routes
from uproxy.host.our_routes import CLAIM


def add_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Claim addresses; returns those that could not be claimed, with the reason. An address that is
    local already counts as done. Raises OSError if netlink cannot be used at all."""
    return our_routes.add_routes(CLAIM, addresses)


def release_claims(addresses: Sequence[str]) -> Mapping[str, OSError]:
    """Remove claims of ours, and no other routes; as above. A missing claim counts as done."""
    return our_routes.delete_routes(CLAIM, addresses)


def held_claims() -> frozenset[str]:
    """The addresses that have a claim of ours, in canonical form. Raises OSError."""
    return our_routes.held_routes(CLAIM)


def remove_claims() -> Sequence[str]:
    """Remove every claim of ours, whichever process has made it; returns the addresses. Raises
    OSError, of which Locked means that a running uproxy needs them."""
    return our_routes.remove_all_routes(CLAIM)
