"""Which addresses LoadBalancer Services get: the settings that only make sense together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from uproxy.config.given import WrongSetting
from uproxy.config.settings import Config
from uproxy.core.allocation.pool_syntax import PoolRanges, format_reservation
from uproxy.core.allocation.pools import Pool, Reservation, overlap
from uproxy.core.allocation.ranges import AddressRange, RangeSet
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.route import Announced

MODES: Final = tuple(each.value for each in Assigning)
ANNOUNCE: Final = tuple(each.value for each in Announced)
IP_MODES: Final = ("auto", "VIP", "Proxy")

_LB: Final = "lb"
_LB_POOL: Final = "lb_pool"
_LB_RESERVE: Final = "lb_reserve"
_LB_DRAIN: Final = "lb_drain"
_ANNOUNCE: Final = "announce"
_ANNOUNCE_REPEAT: Final = "announce_repeat"

LEAST_REPEAT: Final = 1.0
"""Seconds (net.ipv4.neigh.*.locktime)."""

_EXAMPLE: Final = "192.0.2.10-192.0.2.50"
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


class PoolSettings(NamedTuple):
    """What the flags, or the fields of the file, say of pools."""

    mode: str | None = None
    """None: it is not given."""
    pools: Sequence[PoolRanges] = ()
    reserved: Sequence[Reservation] = ()
    drained: Sequence[AddressRange] = ()


def effective_mode(settings: PoolSettings) -> str:
    """The mode; pools imply that they are used. Raises WrongSetting."""
    mode = settings.mode
    if mode is None:
        mode = "pools" if settings.pools else "never"
    if mode == "pools" and not settings.pools:
        raise WrongSetting(_LB, f"pools needs addresses; give a pool, for example {_EXAMPLE}")
    if settings.pools and not Assigning(mode).from_pools:
        raise WrongSetting(_LB, f"{mode} does not use the pools that are given; leave one out")
    return mode


def pools(settings: PoolSettings) -> tuple[Pool, ...]:
    """The pools, by name, with their reservations. Raises WrongSetting."""
    ranges: dict[str, list[AddressRange]] = {}
    for name, more in settings.pools:
        ranges.setdefault(name, []).extend(more)
    _check_overlaps(ranges)
    inside = {name: RangeSet(own) for name, own in ranges.items()}
    _check_inside(_LB_RESERVE, [each.addresses for each in settings.reserved], inside)
    _check_inside(_LB_DRAIN, settings.drained, inside)
    # The order means nothing. A fixed one makes equal settings equal.
    reserved = sorted(set(settings.reserved), key=format_reservation)
    drained = sorted(set(settings.drained))
    return tuple(
        Pool(
            name=name,
            ranges=tuple(own),
            reservations=tuple(r for r in reserved if _touches(r.addresses, inside[name])),
            drained=tuple(each for each in drained if _touches(each, inside[name])),
        )
        for name, own in sorted(ranges.items())
    )


def check(config: Config) -> None:
    """Whether the settings for load balancers fit the others. Raises WrongSetting."""
    if config.lb_mode == "metallb" and config.manifests:
        raise WrongSetting(
            _LB,
            "metallb reads IPAddressPools from a cluster, but the objects come from manifests; "
            "give pools instead",
        )
    if config.announce == "routes" and config.claim_addresses == "never":
        raise WrongSetting(
            _ANNOUNCE, "routes needs addresses to be claimed, which is switched off; use l2"
        )
    from_pools = Assigning(config.lb_mode).from_pools
    if config.announce == "routes" and not from_pools:
        raise WrongSetting(
            _ANNOUNCE, "routes is for addresses of pools, and there are none; give pools"
        )
    if config.announce_repeat and not from_pools:
        raise WrongSetting(
            _ANNOUNCE_REPEAT,
            "only addresses of pools are announced, and there are none; give pools",
        )
    if 0 < config.announce_repeat < LEAST_REPEAT:
        raise WrongSetting(
            _ANNOUNCE_REPEAT,
            f"neighbours ignore what comes more often than once in {LEAST_REPEAT:g} s; give more, "
            "or 0 for never",
        )


def written_pools(config: Config) -> list[str]:
    """The pools, as `parse_pool` reads them."""
    return [f"{each.name}={','.join(map(str, each.ranges))}" for each in config.lb_pools]


def written_reservations(config: Config) -> list[str]:
    """The reservations of all pools, as they are written in flags. One that reaches into several
    pools is in each of them, and is written once."""
    return _once(format_reservation(r) for pool in config.lb_pools for r in pool.reservations)


def written_drained(config: Config) -> list[str]:
    """The drained addresses of all pools, as they are written in flags."""
    return _once(str(each) for pool in config.lb_pools for each in pool.drained)


def parse_ip_mode(text: str) -> str:
    """One of IP_MODES, in upper or lower case."""
    found = [each for each in IP_MODES if each.lower() == text.strip().lower()]
    if not found:
        raise ValueError(f'"{text}" is not {", ".join(IP_MODES[:-1])} or {IP_MODES[-1]}')
    return found[0]


def parse_namespace(text: str) -> str:
    """The name of a namespace, or ""."""
    return parse_named_namespace(text) if text.strip() else ""


def parse_named_namespace(text: str) -> str:
    """The name of a namespace."""
    name = text.strip()
    if not _NAMESPACE.fullmatch(name):
        raise ValueError(
            f'"{text}" is not the name of a namespace; give up to 63 lower-case letters, digits '
            'and "-"'
        )
    return name


def _check_overlaps(ranges: dict[str, list[AddressRange]]) -> None:
    clash = overlap((name, each) for name, own in ranges.items() for each in own)
    if clash is None:
        return
    (name, one), (other, another) = clash
    where = f"of pool {name}" if name == other else f"of pools {name} and {other}"
    raise WrongSetting(_LB_POOL, f"{one} and {another} {where} overlap; give each address once")


def _check_inside(
    setting: str,
    given: Iterable[AddressRange],
    ranges: dict[str, RangeSet],
) -> None:
    for each in given:
        if not any(_touches(each, own) for own in ranges.values()):
            known = f"{_listed(ranges)}" if ranges else "none is given"
            raise WrongSetting(setting, f"{each} is in no pool ({known}); give addresses of one")


def _listed(ranges: dict[str, RangeSet]) -> str:
    return "; ".join(f"{name}: {', '.join(map(str, own.ranges))}" for name, own in ranges.items())


def _touches(one: AddressRange, ranges: RangeSet) -> bool:
    return any(True for _ in ranges.inside(one))


def _once(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(texts))
