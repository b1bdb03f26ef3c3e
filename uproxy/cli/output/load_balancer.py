"""What `uproxy status` and `uproxy explain` print about the addresses of load balancers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from uproxy.core.report.load_balancer_format import (
    AddressView,
    CountsOfFamilyView,
    LoadBalancerView,
    PoolView,
    ServiceAddressesView,
)
from uproxy.core.report.status_format import FrontendView, StatusView

Section = tuple[str, Sequence[Sequence[str]]]
"""A title and its rows."""

_MANY: Final = 10_000_000
"""From here on the number of addresses does not matter any more."""
_MOST: Final = 20
"""Rows that are shown. There may be 10,000 Services, and -o json shows all."""
_MODES: Final = {
    "node": "Services get the addresses of nodes",
    "localhost": "Services get 127.0.0.1 and ::1",
    "pools": "Services get addresses from the pools of --lb-pool",
    "metallb": "Services get addresses from MetalLB's pools",
}
_ANNOUNCED: Final = {
    "l2": "each is announced by one node (ARP, NDP)",
    "routes": "each node exports routes to those that it can serve",
    "never": "they are not announced",
}
FAIL_OVER: Final = (
    "if a node dies, another one announces the address within seconds. If clients wait for "
    "minutes, pods are usually the cause: Kubernetes takes 40 s to notice that a node is dead, and "
    "replaces its pods after 5 minutes (tolerationSeconds). More replicas on different nodes help"
)


def sections(status: StatusView) -> Iterator[Section]:
    """What `uproxy status` prints; nothing if Services get no addresses from uproxy."""
    found = status.load_balancer
    if found is None:
        return
    yield "Load balancer", [("", each) for each in _summary(found)]
    yield "Pools", [("", *_pool(each)) for each in found.pools]
    yield "Addresses", _few([("", *_address(each, found)) for each in found.addresses])
    waiting = [each for each in found.services if not each.addresses and not each.foreign]
    yield "Waiting for an address", _few([("", each.service, each.reason) for each in waiting])
    others = [each for each in found.services if each.foreign]
    yield (
        "Addresses from other controllers",
        _few([("", each.service, each.foreign) for each in others]),
    )


def service_rows(status: StatusView, service: str) -> Iterator[tuple[str, str, str]]:
    """What `uproxy explain` prints about a Service: rows with an empty cell, a word and a text."""
    found = status.load_balancer
    if found is None:
        return
    for each in found.services:
        if each.service == service:
            yield from _of_service(each)
    announced = [each for each in found.addresses if service in each.services]
    for address in announced:
        yield "", "Address", _explained(address, found, service)
    if any(each.node for each in announced) and _is_announced_by_one(found):
        yield "", "Fail-over", FAIL_OVER


def served_elsewhere(status: StatusView) -> list[FrontendView]:
    """Frontends at addresses that other nodes announce, which is as it should be."""
    found = status.load_balancer
    if found is None:
        return []
    theirs = {each.address for each in found.addresses if each.node and not each.here}
    return [
        each for each in status.frontends if each.state == "elsewhere" and each.address in theirs
    ]


def announcers(status: StatusView, frontends: Collection[FrontendView]) -> list[str]:
    """The nodes that announce the addresses of some frontends."""
    addresses = {each.address for each in frontends}
    found = status.load_balancer
    views = found.addresses if found is not None else []
    return sorted({each.node for each in views if each.node and each.address in addresses})


def unannounced(status: StatusView, service: str) -> list[str]:
    """The addresses of a Service that some node should announce, and none does."""
    found = status.load_balancer
    if found is None or not _is_announced_by_one(found):
        return []
    return [each.address for each in found.addresses if service in each.services and not each.node]


def lacking(status: StatusView, service: str) -> str:
    """What a Service should have and has not, to complete "It is served, but ..."; "" if it has
    all."""
    found = status.load_balancer
    if found is None:
        return ""
    own = next((each for each in found.services if each.service == service), None)
    if own is not None and not own.addresses and not own.foreign:
        return "it has no load-balancer address"
    if own is None or found.mode not in ("pools", "metallb"):
        return ""  # Each node serves its own addresses only.
    served = {each.address for each in status.frontends}
    missing = [each for each in own.addresses if each not in served]
    return f"not at {' and '.join(missing)}" if missing else ""


def known_services(status: StatusView) -> set[str]:
    """The Services of which anything is said."""
    found = status.load_balancer
    return {each.service for each in found.services} if found is not None else set()


def _is_announced_by_one(found: LoadBalancerView) -> bool:
    return found.announce == "l2" and found.mode in ("pools", "metallb")


def _summary(found: LoadBalancerView) -> Iterator[str]:
    mode = _MODES.get(found.mode, found.mode)
    pools = found.mode in ("pools", "metallb")
    yield "; ".join(filter(None, (mode, _ANNOUNCED.get(found.announce, "") if pools else "")))
    if found.allocating:
        yield "this node hands them out"
    elif found.allocator:
        # The identity of a process is "NODE_NUMBER", and no name of a node has such a mark.
        node = found.allocator.partition("_")[0]
        yield f"{node} handed them out last" if found.trouble else f"{node} hands them out"
    else:
        yield "it is not known which node hands them out"
    yield from filter(None, (found.trouble, *found.notes))


def _pool(each: PoolView) -> tuple[str, ...]:
    use = "; ".join(f"{family}: {_use(counts)}" for family, counts in each.counts.items())
    alone = "" if each.auto_assign else "only for Services that ask for it"
    return each.name, use, f"from {each.origin}", "; ".join(filter(None, (alone, each.reason)))


def _use(counts: CountsOfFamilyView) -> str:
    parts = [f"{_number(counts.used)} of {_number(counts.total)} used"]
    parts += [f"{_number(counts.free)} free"]
    parts += [f"{_number(counts.reserved)} reserved"] * bool(counts.reserved)
    parts += [f"{_number(counts.drained)} drained"] * bool(counts.drained)
    return ", ".join(parts)


def _number(number: int) -> str:
    return f"{number:,}" if number < _MANY else "millions"


def _address(each: AddressView, found: LoadBalancerView) -> tuple[str, ...]:
    return each.address, _who(each, found), ", ".join(each.services), _why(each)


def _who(each: AddressView, found: LoadBalancerView) -> str:
    """The node that announces an address, and since when."""
    if found.announce == "routes":
        return "exported by this node" if each.here else "not exported by this node"
    if not each.node:
        if _is_announced_by_one(found):
            return "no node"
        return "this node" if each.here else "-"
    where = f" on {each.interface}" if each.interface else ""
    return f"{each.node}{' (this node)' * each.here}{where}{_since(each)}"


def _announces(each: AddressView) -> str:
    """The same as a sentence."""
    node = each.node + " (this node)" * each.here
    where, since = f" on {each.interface}" if each.interface else "", _since(each)
    return f"{node} has announced it{where}{since}" if since else f"{node} announces it{where}"


def _since(each: AddressView) -> str:
    if each.since is None:
        return ""
    try:
        return f" since {datetime.fromtimestamp(each.since, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):  # Whatever the server says.
        return ""


def _why(each: AddressView) -> str:
    conflict = f"{each.conflict} answers for it as well" if each.conflict else ""
    return "; ".join(filter(None, (each.reason, conflict)))


def _of_service(each: ServiceAddressesView) -> Iterator[tuple[str, str, str]]:
    if each.foreign:
        yield "", "Addresses", f"another controller assigns them: {each.foreign}"
    elif not each.addresses:
        yield "", "Addresses", f"none yet: {each.reason or 'it is not decided yet'}"
    elif each.reason:
        yield "", "Addresses", each.reason


def _explained(each: AddressView, found: LoadBalancerView, service: str) -> str:
    text = each.address + (f" from pool {each.pool}" if each.pool else "")
    others = [name for name in each.services if name != service]
    if others:
        text += f", shared with {', '.join(others[:3])}" + " ..." * (len(others) > 3)
    if found.announce == "routes":
        text += f"; this node exports {'a' if each.here else 'no'} route to it"
    elif each.node:
        text += f"; {_announces(each)}"
    elif _who(each, found) != "-":
        text += "; no node announces it"
    why = _why(each)
    return f"{text}: {why}" if why else text


def _few(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    if len(rows) <= _MOST:
        return rows
    more = f"and {len(rows) - _MOST:,} more: -o json"
    return [*rows[:_MOST], ("", "...", *[""] * (len(rows[0]) - 3), more)]
