"""The types of fields of the configuration file that are written as text, and their rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from uproxy.config import load_balancer, syntax
from uproxy.core.allocation import pool_syntax
from uproxy.core.ip import parse_ip


class Fields(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Options shared by all parts of the file."""


class Duration(float):
    """Seconds, written in Go's syntax."""


class PositiveDuration(float):
    """A duration of more than zero."""


class Cidr(str):
    """A network in CIDR notation."""


class NodePortAddress(str):
    """A network or a keyword."""


class ClusterCidr(str):
    """One network, or one of each family with a comma between them."""


class HostPort(str):
    """IP:port."""


class IpAddress(str):
    """IPv4 or IPv6."""


class LabelValue(str):
    """The value of a label."""


class ServerAddress(str):
    """HOST:PORT of an API server."""


class HostName(str):
    """A DNS name, or "*"."""


class PoolText(str):
    """Ranges of addresses, with or without the name of a pool."""


class ReservationText(str):
    """A range, with or without the Service for which it is reserved."""


class RangeText(str):
    """A range of addresses."""


class NamespaceName(str):
    """The name of a namespace."""


class IPMode(str):
    """What the status of a Service says of its addresses."""


def parse_field(kind: type[Any], value: Any) -> Any:
    """Hook for msgspec: read a value of one of the types above. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and issubclass(kind, float):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value}; put it in quotes")
    if issubclass(kind, Duration):
        return kind(syntax.parse_duration(value))
    if issubclass(kind, PositiveDuration):
        return kind(syntax.positive_duration(value))
    if not syntax.split_list(value):
        return kind("")
    return _PARSERS[kind](value)


def _cidr(value: str) -> Cidr:
    if "," in value:
        raise ValueError(f'"{value}" is not one CIDR; give a list')
    return Cidr(syntax.parse_networks(value)[0])


def _node_port_address(value: str) -> NodePortAddress:
    if "," in value:
        raise ValueError(f'"{value}" is not one CIDR; give a list')
    return NodePortAddress(syntax.parse_nodeport_addresses(value)[0])


def _cluster_cidr(value: str) -> ClusterCidr:
    return ClusterCidr(",".join(syntax.parse_cluster_cidr(value)))


def _host_port(value: str) -> HostPort:
    syntax.parse_address(value)
    return HostPort(value)


def _ip_address(value: str) -> IpAddress:
    address = parse_ip(value)
    if address is None:
        raise ValueError(f'"{value}" is not a valid IP address; give for example 0.0.0.0')
    return IpAddress(address)


def _checked(kind: type[str], parse: Callable[[str], object]) -> Callable[[str], str]:
    """A text that stays as it is written, and must be one that can be parsed."""

    def check(value: str) -> str:
        parse(value)
        return kind(value)

    return check


_PARSERS: dict[type[Any], Any] = {
    Cidr: _cidr,
    NodePortAddress: _node_port_address,
    ClusterCidr: _cluster_cidr,
    HostPort: _host_port,
    IpAddress: _ip_address,
    ServerAddress: lambda value: ServerAddress(syntax.parse_server_address(value)),
    HostName: lambda value: HostName(syntax.parse_host_name(value)),
    PoolText: _checked(PoolText, pool_syntax.parse_pool),
    ReservationText: _checked(ReservationText, pool_syntax.parse_reservations),
    RangeText: _checked(RangeText, pool_syntax.parse_ranges),
    NamespaceName: lambda value: NamespaceName(load_balancer.parse_namespace(value)),
    IPMode: lambda value: IPMode(load_balancer.parse_ip_mode(value)),
    LabelValue: lambda value: LabelValue(syntax.parse_label_value(value)),
}
