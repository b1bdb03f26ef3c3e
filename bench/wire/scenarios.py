"""What is measured: each scenario, its peers, and the figures it yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.wire import figures
from bench.wire.churn import SERVICES
from bench.wire.cluster import CALLS, Call, uproxy_in_cluster
from bench.wire.measurements import (
    Measure,
    Measured,
    bodies,
    burst,
    called,
    churn,
    datagrams,
    memory,
    once,
    questions,
    requests,
    short_connections,
    stream,
    trains,
    trickle,
)
from bench.wire.peers import Start
from bench.wire.results import Figure
from bench.wire.uproxy_peer import uproxy

UPROXIES = ("uproxy", "uproxy-epoll")
TCP_PEERS = ("none", "haproxy", "nginx", "go", "nftables", *UPROXIES)
BULK_PEERS = ("none", "haproxy", "haproxy-bulk", "nginx", "go", "nftables", *UPROXIES)
UDP_PEERS = ("none", "nginx", "nftables", *UPROXIES)
PROXIES = ("haproxy", "nginx", "go", *UPROXIES)
THREADS = (1, 2)
"""Of wrk. Ratios depend on their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One comparison."""

    name: str
    title: str
    service: str = ""
    """Name of the backend; "" if its peers have backends of their own."""
    figures: tuple[Figure, ...]
    measure: Measure
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


def _by_wrk(
    name: str,
    title: str,
    measure: Callable[..., Measured],
    connections: int = 64,
    **different: Any,
) -> tuple[Scenario, ...]:
    """A scenario for each number of threads that wrk may use for so many connections."""
    return tuple(
        Scenario(
            name=f"{name}-t{threads}",
            title=f"{title}, wrk -t{threads}",
            tool="wrk",
            measure=partial(measure, threads=threads),
            **{"service": "http", **different},
        )
        for threads in THREADS
        if threads <= connections
    )


def _connections(count: int) -> str:
    return f"{count} connection{'s' if count > 1 else ''}"


_SIXTY_FOUR = partial(requests, connections=64)
_KEEP_ALIVE = tuple(
    scenario
    for count in (1, 16, 64, 256, 1000)
    for scenario in _by_wrk(
        f"keep-alive-{count}",
        f"Keep-alive requests, {_connections(count)}",
        partial(requests, connections=count),
        count,
        figures=figures.REQUESTS,
    )
)
_SHORT = _by_wrk(
    "connections",
    "A connection for each request, 64 at a time",
    short_connections,
    figures=figures.CONNECTIONS,
)
_BULK = tuple(
    scenario
    for count in (1, 8)
    for scenario in _by_wrk(
        f"bulk-{count}",
        f"Bodies of 10 MB, {_connections(count)}",
        partial(bodies, connections=count),
        count,
        figures=figures.BULK,
        peers=BULK_PEERS,
    )
)
_ECHOES: tuple[tuple[str, str, str, Measure], ...] = (
    *(
        (
            f"udp-{flows}",
            f"{flows} flow{'s' if flows > 1 else ''}",
            "udp",
            partial(datagrams, flows=flows),
        )
        for flows in (1, 50, 500, 5000)
    ),
    (
        "udp-trains",
        "4 flows with trains of 16 datagrams, as QUIC",
        "trains",
        partial(trains, flows=4),
    ),
    ("udp-once", "flows of one datagram and one answer, as DNS", "once", once),
)
_UDP = tuple(
    Scenario(
        name=name,
        title=f"UDP echo, {title}",
        service=service,
        figures=figures.DATAGRAMS,
        measure=measure,
        peers=UDP_PEERS,
        baseline="nginx",
    )
    for name, title, service, measure in _ECHOES
)
_CHURN = _by_wrk(
    "churn",
    f"64 connections while endpoints of {SERVICES} Services change, 100 a second",
    churn,
    figures=figures.CHURN,
    peers=("uproxy",),
    baseline="uproxy",
    starts={"uproxy": uproxy(SERVICES)},
)
_TWO_WORKERS = (
    *_by_wrk(
        "two-workers",
        "Keep-alive requests, 64 connections, two workers or threads",
        _SIXTY_FOUR,
        figures=figures.REQUESTS,
        peers=PROXIES,
        workers=2,
    ),
    *_by_wrk(
        "two-workers-connections",
        "A connection for each request, 64 at a time, two workers or threads",
        short_connections,
        figures=figures.CONNECTIONS,
        peers=PROXIES,
        workers=2,
    ),
)
_PRESERVING = {"uproxy": uproxy_in_cluster("auto")}
_BETWEEN_THEMSELVES: Mapping[str, Any] = {
    "peers": ("uproxy-never", "uproxy"),
    "baseline": "uproxy-never",
    "service": "",
    "starts": _PRESERVING,
    "namespaces": True,
}


def _preserved(call: Call) -> tuple[Scenario, ...]:
    title = f"Preserved addresses, {call.title}"
    return (
        *_by_wrk(
            f"preserved-{call.name}-requests",
            f"{title}: keep-alive requests, 64 connections",
            called(call, _SIXTY_FOUR),
            figures=figures.REQUESTS,
            **_BETWEEN_THEMSELVES,
        ),
        *_by_wrk(
            f"preserved-{call.name}-connections",
            f"{title}: a connection for each request, 64 at a time",
            called(call, short_connections),
            figures=figures.CONNECTIONS,
            **_BETWEEN_THEMSELVES,
        ),
        Scenario(
            name=f"preserved-{call.name}-udp",
            title=f"{title}: UDP echo, 50 flows",
            figures=figures.DATAGRAMS,
            measure=called(call, partial(datagrams, flows=50)),
            **_BETWEEN_THEMSELVES,
        ),
    )


SCENARIOS: tuple[Scenario, ...] = (
    *_KEEP_ALIVE,
    *_SHORT,
    Scenario(
        name="burst",
        title="1,000 connections at once, after a pause",
        service="http",
        figures=figures.BURST,
        measure=burst,
    ),
    Scenario(
        name="trickle",
        title="500 messages a second beside 10,000 idle connections",
        service="idle",
        figures=figures.TRICKLE,
        measure=trickle,
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
    *_CHURN,
    *_TWO_WORKERS,
    *(scenario for call in CALLS for scenario in _preserved(call)),
)

QUICK = (
    "keep-alive-64",
    "connections",
    "bulk-8-t2",
    "udp-50",
    *(
        f"preserved-{call}-{kind}-t2"
        for call in ("remote", "bridge")
        for kind in ("requests", "connections")
    ),
)

CORE = (
    "keep-alive-64",
    "connections",
    "bulk-8",
    "two-workers",
    "burst",
    "trickle",
    "udp-50",
    "udp-trains",
    "udp-once",
)
"""The rows of the table in README.md."""
