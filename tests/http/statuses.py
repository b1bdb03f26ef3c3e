"""Statuses for the tests of what shows them."""

from __future__ import annotations

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.counters import Counters
from uproxy.core.report.client_addresses import Masquerade
from uproxy.core.report.status import (
    ApiServerStatus,
    FrontendState,
    FrontendStatus,
    HealthCheckStatus,
    ObjectStatus,
    ServiceStatus,
    Status,
    WorkerStatus,
)
from uproxy.core.route import Backend, Frontend, FrontendKind, ServicePortName

KUBIA = ServicePortName("default", "kubia", "http", "TCP")
DNS = ServicePortName("kube-system", "dns", "", "UDP")

EMPTY = Status(
    node="",
    synced=False,
    frontends=(),
    services=(),
    objects=(),
    workers=(),
    health_checks=(),
    counters={},
    not_ready=("waiting for the first list of Services",),
)

NODE_PORT = FrontendStatus(
    frontend=Frontend("TCP", "127.0.0.1", 30123),
    kind=FrontendKind.NODE_PORT,
    owner=KUBIA,
    state=FrontendState.SERVING,
    backends=(Backend("127.0.1.1", 8080), Backend("fd00::2", 8080)),
    local_backends=(Backend("127.0.1.1", 8080),),
    affinity_timeout=10800,
    balancer="round-robin",
    client_address="preserved",
    proxy_protocol="v2",
)
CLUSTER_IP = FrontendStatus(
    frontend=Frontend("TCP", "10.96.0.7", 80),
    kind=FrontendKind.CLUSTER_IP,
    owner=KUBIA,
    state=FrontendState.FAILED,
    reason="address 10.96.0.7 is not on this node",
    balancer="random",
    client_address_reason="replies did not come back",
    masquerade=Masquerade.ASTRAY,
)
DNS_PORT = FrontendStatus(
    frontend=Frontend("UDP", "fd00::a", 53),
    kind=FrontendKind.CLUSTER_IP,
    owner=DNS,
    state=FrontendState.PAUSED,
    local_backends=(),
    balancer="round-robin",
)

FULL = Status(
    node="node-1",
    synced=True,
    frontends=(DNS_PORT, NODE_PORT, CLUSTER_IP),
    services=(
        ServiceStatus(service=ObjectName("kube-system", "sctp"), reason="SCTP is not served"),
        ServiceStatus(service=ObjectName("default", "kubia"), reason="no ports"),
    ),
    objects=(
        ObjectStatus(where="b.yaml:3", field="spec.ports[0].port", reason="expected int"),
        ObjectStatus(where="a.yaml:9", field="", reason="not a mapping"),
    ),
    workers=(
        WorkerStatus(index=1, pid=4712, restarts=2, active_flows=5, engine="epoll"),
        WorkerStatus(index=0, pid=4711, restarts=1, active_flows=4, engine="io_uring"),
    ),
    health_checks=(
        HealthCheckStatus(
            service=ObjectName("default", "kubia"), port=32000, counts={"IPv6": 0, "IPv4": 1}
        ),
    ),
    counters={
        KUBIA: Counters(
            flows=7,
            active=2,
            client_bytes=100,
            backend_bytes=2000,
            dial_failures=3,
            retries=1,
            masqueraded=6,
            dropped={"no_backend": 4, "dial_failed": 1},
        ),
        DNS: Counters(flows=1, client_datagrams=11, backend_datagrams=12),
    },
    not_ready=("10.96.0.7:80/TCP: address 10.96.0.7 is not on this node",),
    problems={"frontend not open": 1, "last-known state served": 2},
    max_flows=1001,
    api_servers=(
        ApiServerStatus(
            address="https://192.0.2.1:6443",
            origin="--apiserver-address",
            in_use=False,
            reason="connection refused",
        ),
        ApiServerStatus(
            address="https://192.0.2.2:6443", origin="kubelet's kubeconfig k", in_use=True
        ),
        ApiServerStatus(
            address="https://10.96.0.1:443", origin="the environment of this Pod", in_use=False
        ),
    ),
    client_address_reason="IPv6: needs CAP_NET_ADMIN",
)
