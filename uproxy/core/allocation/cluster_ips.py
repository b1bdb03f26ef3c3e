"""The ClusterIPs of all Services, none of which is handed out.

If a pool overlaps with the cluster's own addresses, a Service that got the ClusterIP of another
one, of the cluster's DNS for example, would take its clients. And since an announced address is on
one node only, all other nodes would lose it.
"""

from __future__ import annotations

from collections.abc import Set

from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.ip import parse_ip


class ClusterIPs:
    """Knows which Services have a ClusterIP."""

    def __init__(self) -> None:
        self._of: dict[ObjectName, frozenset[str]] = {}
        self._owners: dict[str, set[ObjectName]] = {}
        """By address. No set is empty."""

    def put(self, name: ObjectName, service: Service | None) -> Set[str]:
        """Take note of a Service; None: it is gone. Returns the addresses that it has got or
        lost."""
        before = self._of.pop(name, frozenset())
        after = _cluster_ips(service) if service is not None else frozenset()
        for address in before - after:
            self._owners[address].discard(name)
            if not self._owners[address]:
                del self._owners[address]
        for address in after - before:
            self._owners.setdefault(address, set()).add(name)
        if after:
            self._of[name] = after
        return before ^ after

    def owner(self, address: str) -> str:
        """What an address is, to complete "X is ..."; "" if it is no ClusterIP."""
        owners = self._owners.get(address)
        return f"the ClusterIP of {min(owners)}" if owners else ""


def _cluster_ips(service: Service) -> frozenset[str]:
    spec = service.spec
    texts = (*(spec.cluster_ips or ()), spec.cluster_ip)
    return frozenset(filter(None, (parse_ip(each) for each in texts if each)))
