"""The fields of a UproxyConfiguration: the options that kube-proxy does not have.

An attribute has the name of the option. The field has the same name in camel case, unless another
one is given here. "" and null mean that a field is not given.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from uproxy.config import syntax
from uproxy.config.field_types import (
    Cidr,
    Duration,
    Fields,
    HostName,
    IPMode,
    LabelValue,
    NamespaceName,
    PoolText,
    PositiveDuration,
    RangeText,
    ReservationText,
    ServerAddress,
)
from uproxy.core.route import BalancerKind


class UproxyConfiguration(Fields, frozen=True):
    """The whole document."""

    api_version: str
    kind: str
    serve_healthz: bool | None = None
    serve_metrics: bool | None = None
    """False: the address is switched off. In a KubeProxyConfiguration, "" is the default."""
    manifests: tuple[str, ...] | None = None
    context: str | None = None
    apiserver_address: tuple[ServerAddress, ...] | None = msgspec.field(
        default=None, name="apiServerAddresses"
    )
    kubelet_kubeconfig: str | None = None
    service_proxy_name: LabelValue | None = None
    tls_relaxed_x509: bool | None = msgspec.field(default=None, name="tlsRelaxedX509")
    metrics_allowed_hosts: tuple[HostName, ...] | None = None
    metrics_per_backend: (
        Annotated[int, msgspec.Meta(ge=0, le=syntax.MAX_METRICS_PER_BACKEND)] | None
    ) = None
    external_ip_cidrs: tuple[Cidr, ...] | None = msgspec.field(default=None, name="externalIPCIDRs")
    claim_addresses: Literal["", "auto", "never"] | None = None
    preserve_client_ip: Literal["", "auto", "local", "never"] | None = msgspec.field(
        default=None, name="preserveClientIP"
    )
    io_uring: Literal["", "auto", "never"] | None = msgspec.field(default=None, name="ioUring")
    busy_poll: Literal["", "auto", "never"] | None = None
    strict_source_ranges: bool | None = None
    lb: Literal["", "never", "node", "localhost", "pools", "metallb"] | None = None
    lb_pool: tuple[PoolText, ...] | None = msgspec.field(default=None, name="lbPools")
    lb_reserve: tuple[ReservationText, ...] | None = msgspec.field(default=None, name="lbReserved")
    lb_drain: tuple[RangeText, ...] | None = msgspec.field(default=None, name="lbDrained")
    lb_ip_mode: IPMode | None = msgspec.field(default=None, name="lbIPMode")
    announce: Literal["", "l2", "routes", "never"] | None = None
    announce_repeat: Duration | None = None
    lease_namespace: NamespaceName | None = None
    metallb_namespace: NamespaceName | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=syntax.MAX_WORKERS)] | None = None
    balancer: BalancerKind | None = None
    max_flows: Annotated[int, msgspec.Meta(ge=1, le=syntax.MAX_FLOWS)] | None = None
    udp_timeout: PositiveDuration | None = None
    tcp_idle_timeout: Duration | None = None
    half_close_timeout: PositiveDuration | None = None
    drain_timeout: Duration | None = None
    sync_period: PositiveDuration | None = None
    min_sync_period: Duration | None = None
    state_dir: str | None = None
    flow_log: str | None = None
    flow_log_every: Annotated[int, msgspec.Meta(ge=0, le=syntax.MAX_EVERY)] | None = None
