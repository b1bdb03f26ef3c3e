"""Who holds which address, and who may share one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from uproxy.core.allocation.ranges import quoted
from uproxy.core.cluster.objects import ObjectName

_SHOWN: Final = 3
"""How many Services a reason names. Thousands may share an address."""

_NOBODY: Final[Mapping[ObjectName, Sharing]] = MappingProxyType({})


class Sharing(NamedTuple):
    """What decides with which other Services a Service may share an address."""

    key: str
    """The annotation allow-shared-ip; "" if the Service shares with none."""
    local: bool
    """Whether its externalTrafficPolicy is Local, so that not every node serves it."""
    selector: str
    """Of a Service with policy Local: which pods it has, and so on which nodes they are."""
    ports: frozenset[tuple[str, int]]
    """Protocols and ports."""

    @property
    def group(self) -> tuple[str, bool, str]:
        """Two Services share only if these are equal, and `key` is not empty."""
        return self.key, self.local, self.selector


class Holders:
    """The Services that hold addresses. All holders of one address are of the same group."""

    def __init__(self) -> None:
        self._by_address: dict[str, dict[ObjectName, Sharing]] = {}
        self._ports: dict[str, dict[tuple[str, int], ObjectName]] = {}
        """The holder of each port, by address."""
        self._by_group: dict[tuple[str, bool, str], dict[str, None]] = {}
        """The addresses of each group that shares, in the order in which it got them."""

    def __getitem__(self, address: str) -> Mapping[ObjectName, Sharing]:
        """The holders of an address."""
        return self._by_address.get(address, _NOBODY)

    def __contains__(self, address: str) -> bool:
        return address in self._by_address

    def of_group(self, sharing: Sharing) -> Iterable[str]:
        """The addresses whose holders share with those of the same group."""
        return self._by_group.get(sharing.group, {}) if sharing.key else ()

    def put(self, address: str, name: ObjectName, sharing: Sharing) -> None:
        """Make a Service a holder, which must be allowed by `refusal`."""
        self._by_address.setdefault(address, {})[name] = sharing
        self._ports.setdefault(address, {}).update(dict.fromkeys(sharing.ports, name))
        if sharing.key:
            self._by_group.setdefault(sharing.group, {})[address] = None

    def remove(self, address: str, name: ObjectName) -> None:
        """Take an address from a holder."""
        holders, ports = self._by_address[address], self._ports[address]
        sharing = holders.pop(name)
        for port in sharing.ports:
            del ports[port]
        if not holders:
            del self._by_address[address], self._ports[address]
            self._leave_group(address, sharing)

    def _leave_group(self, address: str, sharing: Sharing) -> None:
        addresses = self._by_group.get(sharing.group)
        if addresses is not None:
            addresses.pop(address, None)
            if not addresses:
                del self._by_group[sharing.group]

    def refusal(self, address: str, name: ObjectName, sharing: Sharing) -> str:
        """Why a Service may not hold an address, or hold it in this way; "" if it may. The only
        holder of an address may change how it shares it."""
        holders = self[address]
        other = next((each for each in holders if each != name), None)
        if other is None:
            return ""
        reason = _mismatch(holders[other], sharing)
        if reason:
            others = sorted(each for each in holders if each != name)
            return (
                f'can\'t change sharing key for "{name}", address {address} also in use by '
                f"{_names(others)}: {reason}"
            )
        ports = self._ports[address]
        # In order, so that the reason is always the same.
        for port in sorted(sharing.ports):
            holder = ports.get(port, name)
            if holder != name:
                return f'port {port[0]}/{port[1]} is already in use on "{address}" by {holder}'
        return ""


def _mismatch(existing: Sharing, new: Sharing) -> str:
    if not existing.key:
        return "existing service does not allow sharing"
    if not new.key:
        return "new service does not allow sharing"
    if existing.key != new.key:
        keys = f"{quoted(new.key)} does not match existing sharing key {quoted(existing.key)}"
        return f"sharing key {keys}"
    if existing.local != new.local:
        return "externalTrafficPolicy Local cannot share with Cluster"
    if existing.selector != new.selector:
        selectors = f"{quoted(new.selector)} does not match {quoted(existing.selector)}"
        return f"with externalTrafficPolicy Local, selector {selectors}"
    return ""


def _names(names: list[ObjectName]) -> str:
    more = len(names) - _SHOWN
    return ",".join(map(str, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
