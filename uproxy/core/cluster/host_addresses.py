"""Which machines of the cluster have which addresses: all nodes, and the API servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

API_SERVER: Final = "the API server's address"
"""How the API servers are named in reasons."""


class HostAddresses:
    """Which nodes and API servers have which addresses. Several may have the same one."""

    def __init__(self) -> None:
        self._addresses: dict[str, frozenset[str]] = {}
        """By holder."""
        self._holders: dict[str, set[str]] = {}
        """By address; never an empty set."""
        self.own: frozenset[str] = frozenset()
        """Those of this node. They are served, but not claimed either, also while no interface has
        them: a renewed lease may take an address away for a second."""
        self.version = 0
        """Another one after each change."""

    def put(self, holder: str, addresses: Iterable[str]) -> frozenset[str]:
        """Set all addresses of a holder; returns those that it has got or lost.

        A holder is named as reasons show it: "an address of node worker-2".
        """
        before, now = self._addresses.get(holder, frozenset()), frozenset(addresses)
        self.version += before != now
        for address in before - now:
            holders = self._holders[address]
            holders.discard(holder)
            if not holders:
                del self._holders[address]
        for address in now - before:
            self._holders.setdefault(address, set()).add(holder)
        self._addresses.pop(holder, None)
        if now:
            self._addresses[holder] = now
        return before ^ now

    def of(self, address: str) -> str:
        """The holder of an address; "" if there is none. The API server comes before its node."""
        holders = self._holders.get(address)
        return max(holders) if holders else ""
