"""The fields of a KubeProxyConfiguration as of Kubernetes 1.37, and those of uproxy, with their
rules.

Fields of kube-proxy that have no effect here are still checked: kube-proxy would refuse a wrong
value too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from uproxy.config import load_balancer, syntax
from uproxy.core.allocation import pool_syntax
from uproxy.core.ip import parse_ip
from uproxy.core.route import BalancerKind


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


_Count = Annotated[int, msgspec.Meta(ge=0)]
_MarkBit = Annotated[int, msgspec.Meta(ge=0, le=31)]
_InterfaceName = Annotated[str, msgspec.Meta(max_length=15)]


class _Fields(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Options shared by all parts of the file."""


class _SyncPeriods(_Fields, frozen=True):
    sync_period: Duration | None = None
    min_sync_period: Duration | None = None


class ClientConnection(_Fields, frozen=True):
    kubeconfig: str | None = None
    accept_content_types: str | None = None
    content_type: str | None = None
    qps: float | None = None
    burst: _Count | None = None


class Logging(_Fields, frozen=True):
    format: Literal["", "text", "json"] | None = None
    verbosity: _Count | None = None
    flush_frequency: int | str | None = None
    vmodule: list[Any] | None = None
    options: dict[str, Any] | None = None


class Iptables(_SyncPeriods, frozen=True):
    masquerade_bit: _MarkBit | None = None
    masquerade_all: bool | None = None
    localhost_node_ports: bool | None = None


class Ipvs(_SyncPeriods, frozen=True):
    scheduler: str | None = None
    exclude_cidrs: list[Cidr] | None = msgspec.field(default=None, name="excludeCIDRs")
    strict_arp: bool | None = msgspec.field(default=None, name="strictARP")
    tcp_timeout: Duration | None = None
    tcp_fin_timeout: Duration | None = None
    udp_timeout: Duration | None = None


class Nftables(_SyncPeriods, frozen=True):
    masquerade_bit: _MarkBit | None = None
    masquerade_all: bool | None = None


class Winkernel(_Fields, frozen=True):
    network_name: str | None = None
    source_vip: str | None = None
    enable_dsr: bool | None = msgspec.field(default=None, name="enableDSR")
    root_hns_endpoint_name: str | None = None
    forward_health_check_vip: bool | None = msgspec.field(
        default=None, name="forwardHealthCheckVip"
    )


class DetectLocal(_Fields, frozen=True):
    bridge_interface: _InterfaceName | None = None
    interface_name_prefix: _InterfaceName | None = None


class Conntrack(_Fields, frozen=True):
    max_per_core: _Count | None = None
    min: _Count | None = None
    tcp_established_timeout: Duration | None = None
    tcp_close_wait_timeout: Duration | None = None
    tcp_be_liberal: bool | None = None
    udp_timeout: Duration | None = None
    udp_stream_timeout: Duration | None = None


class KubeProxyConfiguration(_Fields, frozen=True):
    """The whole file. None, and Go's zero values in kube-proxy's fields: not given."""

    api_version: str
    kind: str
    hostname_override: str | None = None
    bind_address: IpAddress | None = None
    healthz_bind_address: HostPort | None = None
    metrics_bind_address: HostPort | None = None
    bind_address_hard_fail: bool | None = None
    node_port_addresses: tuple[NodePortAddress, ...] | None = None
    cluster_cidr: ClusterCidr | None = msgspec.field(default=None, name="clusterCIDR")
    logging: Logging | None = None
    udp_idle_timeout: Duration | None = None
    """A field of kube-proxy's userspace mode, which existed until 1.25."""

    manifests: tuple[str, ...] | None = None
    context: str | None = None
    api_server_addresses: tuple[ServerAddress, ...] | None = None
    kubelet_kubeconfig: str | None = None
    service_proxy_name: LabelValue | None = None
    tls_relaxed_x509: bool | None = msgspec.field(default=None, name="tlsRelaxedX509")
    metrics_allowed_hosts: tuple[HostName, ...] | None = None
    external_ip_cidrs: tuple[Cidr, ...] | None = msgspec.field(default=None, name="externalIPCIDRs")
    claim_addresses: Literal["", "auto", "never"] | None = None
    preserve_client_ip: Literal["", "auto", "local", "never"] | None = msgspec.field(
        default=None, name="preserveClientIP"
    )
    io_uring: Literal["", "auto", "never"] | None = msgspec.field(default=None, name="ioUring")
    busy_poll: Literal["", "auto", "never"] | None = None
    strict_source_ranges: bool | None = None
    lb: Literal["", "never", "node", "localhost", "pools", "metallb"] | None = None
    lb_pools: tuple[PoolText, ...] | None = None
    lb_reserved: tuple[ReservationText, ...] | None = None
    lb_drained: tuple[RangeText, ...] | None = None
    lb_ip_mode: IPMode | None = msgspec.field(default=None, name="lbIPMode")
    announce: Literal["", "l2", "routes", "never"] | None = None
    announce_repeat: Duration | None = None
    lease_namespace: NamespaceName | None = None
    metallb_namespace: NamespaceName | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=syntax.MAX_WORKERS)] | None = None
    balancer: BalancerKind | None = None
    max_flows: Annotated[int, msgspec.Meta(ge=1, le=syntax.MAX_FLOWS)] | None = None
    tcp_idle_timeout: Duration | None = None
    half_close_timeout: PositiveDuration | None = None
    drain_timeout: Duration | None = None
    sync_period: PositiveDuration | None = None
    min_sync_period: Duration | None = None
    state_dir: str | None = None

    client_connection: ClientConnection | None = None
    config_sync_period: Duration | None = None
    conntrack: Conntrack | None = None
    detect_local: DetectLocal | None = None
    detect_local_mode: (
        Literal["", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"] | None
    ) = None
    enable_profiling: bool | None = None
    feature_gates: dict[str, bool] | None = None
    iptables: Iptables | None = None
    ipvs: Ipvs | None = None
    mode: Literal["", "userspace", "iptables", "ipvs", "nftables", "kernelspace"] | None = None
    nftables: Nftables | None = None
    oom_score_adj: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] | None = None
    port_range: str | None = None
    resource_container: str | None = None
    show_hidden_metrics_for_version: str | None = None
    windows_run_as_service: bool | None = None
    winkernel: Winkernel | None = None

    def kernel_sections(self) -> dict[str, _SyncPeriods]:
        """Sections for kernel modes that have periods of their own, as far as they are given."""
        sections = {"iptables": self.iptables, "ipvs": self.ipvs, "nftables": self.nftables}
        return {name: section for name, section in sections.items() if section is not None}


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
