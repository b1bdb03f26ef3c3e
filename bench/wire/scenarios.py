"""What is measured: each scenario, its peers, and the figures it yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.wire import figures
from bench.wire.churn import SERVICES
from bench.wire.cluster import CALLS, uproxy_in_cluster
from bench.wire.measurements import (
    Measured,
    Terms,
    bodies,
    called,
    churn,
    datagrams,
    memory,
    questions,
    requests,
    stream,
)
from bench.wire.peers import Start, Subject
from bench.wire.results import Figure
from bench.wire.uproxy_peer import uproxy

TCP_PEERS = ("none", "haproxy", "nginx", "go", "nftables", "uproxy")
BULK_PEERS = ("none", "haproxy", "haproxy-bulk", "nginx", "go", "nftables", "uproxy")
UDP_PEERS = ("none", "nginx", "nftables", "uproxy")
PROXIES = ("haproxy", "nginx", "go", "uproxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One comparison."""

    name: str
    title: str
    service: str = ""
    """Name of the backend; "" if its peers have backends of their own."""
    figures: tuple[Figure, ...]
    measure: Callable[[Subject, Terms], Measured]
    peers: tuple[str, ...] = TCP_PEERS
    baseline: str = "haproxy"
    workers: int = 1
    fresh: bool = False
    """Whether each measurement needs a new process."""
    tool: str = ""
    """Load generator that must be installed; its Debian package has the same name."""
    starts: Mapping[str, Start] = field(default_factory=dict)
    """How to start peers, where it differs from the usual. Scenarios that name the same start share
    a peer."""
    namespaces: bool = False
    """Whether it takes place in network namespaces, which need root."""


_KEEP_ALIVE = tuple(
    Scenario(
        name=f"keep-alive-{connections}",
        title=f"Keep-alive requests, {connections} connection{'s' if connections > 1 else ''}",
        service="http",
        tool="wrk",
        figures=figures.REQUESTS,
        measure=requests(connections),
    )
    for connections in (1, 16, 64, 256, 1000)
)
_BULK = tuple(
    Scenario(
        name=f"bulk-{connections}",
        title=f"Bodies of 10 MB, {connections} connection{'s' if connections > 1 else ''}",
        service="http",
        tool="wrk",
        figures=figures.BULK,
        measure=bodies(connections),
        peers=BULK_PEERS,
    )
    for connections in (1, 8)
)
_UDP = tuple(
    Scenario(
        name=f"udp-{flows}",
        title=f"UDP echo, {flows} flow{'s' if flows > 1 else ''}",
        service="udp",
        figures=figures.DATAGRAMS,
        measure=datagrams(flows),
        peers=UDP_PEERS,
        baseline="nginx",
    )
    for flows in (1, 50, 500, 5000)
)

_KINDS = (
    ("requests", "keep-alive requests, 64 connections", figures.REQUESTS, requests(64)),
    (
        "connections",
        "a connection for each request, 64 at a time",
        figures.CONNECTIONS,
        requests(64, "Connection: close"),
    ),
    ("udp", "UDP echo, 50 flows", figures.DATAGRAMS, datagrams(50)),
)
_PRESERVING = {"uproxy": uproxy_in_cluster("auto")}
_PRESERVED = tuple(
    Scenario(
        name=f"preserved-{call.name}-{kind}",
        title=f"Preserved addresses, {call.title}: {title}",
        tool="" if kind == "udp" else "wrk",
        figures=shown,
        measure=called(call, measure),
        peers=("uproxy-never", "uproxy"),
        baseline="uproxy-never",
        starts=_PRESERVING,
        namespaces=True,
    )
    for call in CALLS
    for kind, title, shown, measure in _KINDS
)

SCENARIOS: tuple[Scenario, ...] = (
    *_KEEP_ALIVE,
    Scenario(
        name="connections",
        title="A connection for each request, 64 at a time",
        service="http",
        tool="wrk",
        figures=figures.CONNECTIONS,
        measure=requests(64, "Connection: close"),
    ),
    *_BULK,
    Scenario(
        name="stream",
        title="One long stream (iperf3)",
        service="stream",
        tool="iperf3",
        figures=figures.BULK,
        measure=stream,
        peers=BULK_PEERS,
    ),
    *_UDP,
    Scenario(
        name="dns",
        title="DNS questions to dnsmasq (dnsperf), 20 sockets",
        service="dns",
        tool="dnsperf",
        figures=figures.QUESTIONS,
        measure=questions,
        peers=UDP_PEERS,
        baseline="nginx",
    ),
    Scenario(
        name="idle",
        title="Idle connections",
        service="idle",
        figures=figures.MEMORY,
        measure=memory,
        fresh=True,
    ),
    Scenario(
        name="churn",
        title=f"64 connections while endpoints of {SERVICES} Services change, 100 a second",
        service="http",
        tool="wrk",
        figures=figures.CHURN,
        measure=churn,
        peers=("uproxy",),
        baseline="uproxy",
        starts={"uproxy": uproxy(SERVICES)},
    ),
    Scenario(
        name="two-workers",
        title="Keep-alive requests, 64 connections, two workers or threads",
        service="http",
        tool="wrk",
        figures=figures.REQUESTS,
        measure=requests(64),
        peers=PROXIES,
        workers=2,
    ),
    Scenario(
        name="two-workers-connections",
        title="A connection for each request, 64 at a time, two workers or threads",
        service="http",
        tool="wrk",
        figures=figures.CONNECTIONS,
        measure=requests(64, "Connection: close"),
        peers=PROXIES,
        workers=2,
    ),
    *_PRESERVED,
)

QUICK = (
    "keep-alive-64",
    "connections",
    "bulk-8",
    "udp-50",
    *(
        f"preserved-{call}-{kind}"
        for call in ("remote", "bridge")
        for kind in ("requests", "connections")
    ),
)
