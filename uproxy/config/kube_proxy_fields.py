"""The fields of a KubeProxyConfiguration as of Kubernetes 1.37, with their rules.

Fields that have no effect here are still checked: kube-proxy would refuse a wrong value too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from uproxy.config.field_types import (
    Cidr,
    ClusterCidr,
    Duration,
    Fields,
    HostPort,
    IpAddress,
    NodePortAddress,
)

_Count = Annotated[int, msgspec.Meta(ge=0)]
_MarkBit = Annotated[int, msgspec.Meta(ge=0, le=31)]
_InterfaceName = Annotated[str, msgspec.Meta(max_length=15)]


class _SyncPeriods(Fields, frozen=True):
    sync_period: Duration | None = None
    min_sync_period: Duration | None = None


class ClientConnection(Fields, frozen=True):
    kubeconfig: str | None = None
    accept_content_types: str | None = None
    content_type: str | None = None
    qps: float | None = None
    burst: _Count | None = None


class Logging(Fields, frozen=True):
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


class Winkernel(Fields, frozen=True):
    network_name: str | None = None
    source_vip: str | None = None
    enable_dsr: bool | None = msgspec.field(default=None, name="enableDSR")
    root_hns_endpoint_name: str | None = None
    forward_health_check_vip: bool | None = msgspec.field(
        default=None, name="forwardHealthCheckVip"
    )


class DetectLocal(Fields, frozen=True):
    bridge_interface: _InterfaceName | None = None
    interface_name_prefix: _InterfaceName | None = None


class Conntrack(Fields, frozen=True):
    max_per_core: _Count | None = None
    min: _Count | None = None
    tcp_established_timeout: Duration | None = None
    tcp_close_wait_timeout: Duration | None = None
    tcp_be_liberal: bool | None = None
    udp_timeout: Duration | None = None
    udp_stream_timeout: Duration | None = None


class KubeProxyConfiguration(Fields, frozen=True):
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
    udp_idle_timeout: Duration | None = None
    """A field of kube-proxy's userspace mode, which existed until 1.25."""
    windows_run_as_service: bool | None = None
    winkernel: Winkernel | None = None

    def kernel_sections(self) -> dict[str, _SyncPeriods]:
        """Sections for kernel modes that have periods of their own, as far as they are given."""
        sections = {"iptables": self.iptables, "ipvs": self.ipvs, "nftables": self.nftables}
        return {name: section for name, section in sections.items() if section is not None}
