"""Which machines of the cluster have which addresses: all nodes and the API servers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

API_SERVER: Final = "the API server's address"
"""What an address of an API server is called in reasons."""
_NODE: Final = "an address of node "
"""The same for an address of a Node, before the name of that Node."""


def node_host(name: str) -> str:
    """What the Node of this name is called as a host."""
    return f"{_NODE}{name}"


class HostAddresses:
    """Addresses of nodes and API servers. Several of these hosts may have the same address.

    A host is named as reasons show it, for example "an address of node worker-2".
    """

    def __init__(self) -> None:
        self._addresses: dict[str, frozenset[str]] = {}
        """Addresses by host."""
        self._hosts: dict[str, set[str]] = {}
        """Hosts by address. No set is empty."""
        self.own: frozenset[str] = frozenset()
        """Addresses in this node's Node object. Services may be served there, but these are never
        claimed, even while no interface has them: a renewed lease may take an address away for a
        second."""
        self.version = 0
        """A number that increases with each change."""

    def put(self, host: str, addresses: Iterable[str]) -> frozenset[str]:
        """Set all addresses of a host. Returns those that it has got or lost."""
        before, now = self._addresses.get(host, frozenset()), frozenset(addresses)
        self.version += before != now
        for address in before - now:
            hosts = self._hosts[address]
            hosts.discard(host)
            if not hosts:
                del self._hosts[address]
        for address in now - before:
            self._hosts.setdefault(address, set()).add(host)
        self._addresses.pop(host, None)
        if now:
            self._addresses[host] = now
        return before ^ now

    @property
    def addresses(self) -> Collection[str]:
        """All addresses that any host has."""
        return self._hosts.keys()

    @property
    def nodes(self) -> Collection[str]:
        """The names of all Nodes that have an address."""
        return [each.removeprefix(_NODE) for each in self._addresses if each.startswith(_NODE)]

    def host_of(self, address: str) -> str:
        """The host that has an address; "" if there is none. An API server precedes its node."""
        hosts = self._hosts.get(address)
        return max(hosts) if hosts else ""

    def nodes_at(self, addresses: Iterable[str]) -> list[str]:
        """The names of all Nodes that have one of these addresses, in order."""
        hosts = set[str]().union(*(self._hosts.get(each, ()) for each in addresses))
        return sorted(each.removeprefix(_NODE) for each in hosts if each.startswith(_NODE))
