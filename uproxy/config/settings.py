"""Every setting of the program; flags, UPROXY_* variables and a configuration file end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from uproxy.core.allocation.pools import Pool
from uproxy.core.route import BalancerKind

KUBELET_KUBECONFIG: Final = Path("/etc/kubernetes/kubelet.conf")
"""Where kubeadm puts it, and where deploy/kustomize mounts it."""


class Address(NamedTuple):
    """Where an HTTP server listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Immutable; made by `uproxy.cli`, at the start and when the configuration file is reloaded."""

    manifests: tuple[Path, ...] = ()
    """Files or directories to read objects from. Empty: the Kubernetes API."""
    kubeconfig: Path | None = None
    """How to reach the cluster; None: as a Pod of it, else by $KUBECONFIG or ~/.kube/config."""
    context: str = ""
    """Which context of the kubeconfig; "": its current one."""
    apiserver_address: tuple[str, ...] = ()
    """Addresses of the API server, "HOST:PORT", which are tried in turn before that of the
    kubeconfig, or those that a Pod finds by itself."""
    kubelet_kubeconfig: Path = KUBELET_KUBECONFIG
    """In a Pod: a kubeconfig of this node's kubelet. The address of the API server in it is tried,
    too."""
    service_proxy_name: str = ""
    """Serve Services whose label service.kubernetes.io/service-proxy-name is this; "": those
    without the label."""
    tls_relaxed_x509: bool = False
    """Whether the API server's certificate may lack extensions that RFC 5280 wants, which Python
    3.13 insists on and clusters set up years ago do not have."""
    node_name: str = ""
    """Name of this node as endpoints spell it; decides which endpoints are local."""
    nodeport_addresses: tuple[str, ...] = ()
    """CIDRs, or "primary", "localhost", "all"; empty: every local address."""
    cluster_cidr: tuple[str, ...] = ()
    """Pod networks; clients from there count as pods of this cluster."""
    external_ip_cidrs: tuple[str, ...] = ()
    """Networks whose addresses Services may use as externalIPs even if this node does not have
    them."""
    claim_addresses: str = "auto"
    """"auto": addresses of Services that no interface has are claimed, if this process has the
    privileges. "never": only addresses that the node has already are served."""
    preserve_client_ip: str = "auto"
    """"auto": if this process has the privileges, pods see the addresses of clients from outside
    where externalTrafficPolicy is Local, and those of this node's pods. "local": only the former.
    "never": they see this node's address."""
    io_uring: str = "auto"
    """"auto": workers use io_uring where the kernel allows it, else epoll. "never": epoll."""
    busy_poll: str = "auto"
    """"auto": workers that use io_uring poll for the next message for a moment before they sleep,
    if processors are idle and messages follow one another closely. "never": they sleep at once."""
    strict_source_ranges: bool = False
    """Whether loadBalancerSourceRanges apply to NodePorts and externalIPs too, and clients of a
    family without a range are refused."""
    lb_mode: str = "never"
    """Where LoadBalancer Services get addresses from. "never": none are given. "node": from the
    nodes; "localhost": 127.0.0.1 and ::1; "pools": from `lb_pools`; "metallb": from IPAddressPool
    objects, and from `lb_pools`."""
    lb_pools: tuple[Pool, ...] = ()
    """By name, with what is reserved and drained in them."""
    lb_ip_mode: str = "auto"
    """What is written into the status as `ipMode`: "VIP" or "Proxy". "auto": VIP, but Proxy where
    another service proxy serves the same nodes."""
    announce: str = "l2"
    """How others learn which node has an address of a pool. "l2": one node answers ARP and NDP for
    it; "routes": each node has a route, for a routing daemon; "never": they are told otherwise."""
    announce_repeat: float = 0.0
    """Seconds between announcements of an address that does not move; 0: there are none."""
    lease_namespace: str = ""
    """Where the Leases of allocators and announcers are; "": in the Pod's namespace, or else in
    kube-system."""
    metallb_namespace: str = "metallb-system"
    """Where the IPAddressPool and L2Advertisement objects are."""
    healthz_address: Address | None = Address("0.0.0.0", 10256)
    """/healthz, /livez and /readyz; None switches the server off."""
    metrics_address: Address | None = Address("127.0.0.1", 10249)
    """/metrics, /proxyMode, /api and the status page; None switches the server off."""
    metrics_allowed_hosts: tuple[str, ...] = ()
    """Host names that requests to the metrics address may use, besides IP addresses, localhost, the
    host's name and the node's; "*": any."""
    metrics_per_backend: int = 0
    """How many backends have metrics of their own; 0: none."""
    bind_address_hard_fail: bool = False
    """Whether the program exits if a health or metrics port is taken; otherwise it tries again."""
    workers: int = 1
    """Number of processes that relay traffic."""
    balancer: BalancerKind = BalancerKind.ROUND_ROBIN
    """For Services without the annotation uproxy.dev/balancer."""
    max_flows: int = 65536
    """Flows (TCP and UDP) at a time, over all workers."""
    udp_timeout: float = 120.0
    """Seconds without a datagram after which a UDP conversation ends. A flow that is not answered,
    or that was over within two seconds, ends after at most 30 s, as in conntrack."""
    tcp_idle_timeout: float = 86400.0
    """Seconds without a byte in either direction after which a TCP flow is closed; 0: never.
    The default is conntrack's nf_conntrack_tcp_timeout_established as kube-proxy sets it, 24 h."""
    half_close_timeout: float = 3600.0
    """Seconds that a TCP flow with one closed direction may go without a byte (kube-proxy's
    conntrack.tcpCloseWaitTimeout, 1 h)."""
    drain_timeout: float = 30.0
    """Seconds that flows are given to end when uproxy stops or their Service is deleted."""
    min_sync_period: float = 0.02
    """Seconds between two syncs; changes in between are applied together."""
    sync_period: float = 30.0
    """Seconds. /healthz fails when a change has waited for more than twice as long, as in
    kube-proxy."""
    state_dir: Path | None = None
    """Where the last-known state of the cluster is kept; None: nowhere."""
    flow_log: str = ""
    """File that gets a line for each flow that has ended; "-": standard output; "": there is
    none."""
    flow_log_every: int = 1
    """The flow log has one of so many flows that have ended well, and all that have not; 0: only
    the latter."""
    log_format: str = "text"
    """"text" or "json"."""
    verbosity: int = 0
    """0: what an operator wants to see; 1 and more: details for debugging."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each setting comes from, by the field of the configuration file; those that are missing
    have their defaults. It is shown, and decides nothing."""
