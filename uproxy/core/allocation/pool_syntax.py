"""How pools and reservations are written, in flags, in the configuration file and in annotations.

Each function raises ValueError with one line that quotes what was given and says what would be
right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from uproxy.core.allocation.pools import Reservation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName

DEFAULT_POOL: Final = "default"
"""The pool to which ranges without a name belong."""

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")


class PoolRanges(NamedTuple):
    """What one use of --lb-pool says. Those with the same name are one pool."""

    name: str
    ranges: tuple[AddressRange, ...]


def parse_pool(text: str) -> PoolRanges:
    """ "[NAME=]RANGE[,RANGE...]", where a range is FIRST-LAST, a CIDR or an address."""
    name, named, ranges = text.rpartition("=")
    name = name.strip() if named else DEFAULT_POOL
    if "=" in name:
        raise ValueError(f'"{text}" has two names; give each pool by itself')
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" is not the name of a pool; give lower-case letters, digits, "-" and "."'
        )
    found = parse_ranges(ranges)
    if not found:
        raise ValueError(f'"{text}" has no addresses; give for example 192.0.2.10-192.0.2.50')
    return PoolRanges(name, found)


def parse_ranges(text: str) -> tuple[AddressRange, ...]:
    """Ranges of addresses, separated by commas."""
    return tuple(AddressRange.parse(each) for each in _parts(text))


def parse_reservations(text: str) -> tuple[Reservation, ...]:
    """ "RANGE[=NAMESPACE/NAME]", separated by commas."""
    return tuple(_reservation(each) for each in _parts(text))


def format_reservation(reservation: Reservation) -> str:
    """A reservation, as `parse_reservations` reads it."""
    service = "" if reservation.service is None else f"={reservation.service}"
    return f"{reservation.addresses}{service}"


def _reservation(text: str) -> Reservation:
    addresses, named, service = text.partition("=")
    if not named:
        return Reservation(AddressRange.parse(addresses))
    namespace, _, name = service.strip().partition("/")
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise ValueError(
            f'"{service.strip()}" is not the name of a Service; write NAMESPACE/NAME, for example '
            "192.0.2.10=default/web"
        )
    return Reservation(AddressRange.parse(addresses), ObjectName(namespace, name))


def _parts(text: str) -> Iterator[str]:
    return (each.strip() for each in text.split(",") if each.strip())
