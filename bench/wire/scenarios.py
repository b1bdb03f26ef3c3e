"""What is measured: each scenario, and the figures it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.wire import figures
from bench.wire.backends import BODY
from bench.wire.changes import latency_under_churn
from bench.wire.churn import SERVICES
from bench.wire.cluster import CALLS, Call, uproxy_in_cluster
from bench.wire.idle import idle_connections
from bench.wire.kernel import kernel_memory
from bench.wire.loads import WrkReport, dnsperf, iperf3, wrk
from bench.wire.peers import Start, Subject
from bench.wire.processes import Unavailable
from bench.wire.results import Figure
from bench.wire.udp_load import UdpLoad
from bench.wire.uproxy_peer import uproxy

TCP_PEERS = ("none", "haproxy", "nginx", "go", "nftables", "uproxy")
BULK_PEERS = ("none", "haproxy", "haproxy-bulk", "nginx", "go", "nftables", "uproxy")
UDP_PEERS = ("none", "nginx", "nftables", "uproxy")
PROXIES = ("haproxy", "nginx", "go", "uproxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The conditions of a measurement."""

    seconds: float
    directory: Path
    """Where the backends keep their files."""
    stream_bytes: int
    idle: int
    """Connections."""
    source_port: int
    """Of UDP clients; always the same, so that rounds share their flows."""
    generations: Iterator[int] = field(default_factory=count)
    """Of endpoints, for churn."""


Measured = dict[str, float]


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


def _charged(subject: Subject, before: float, operations: float, scale: float) -> Measured:
    """CPU of the proxy for each operation, if there is a process to charge."""
    if subject.process is None or not operations:
        return {}
    return {figures.CPU: (subject.process.cpu_seconds() - before) / operations * scale}


def _cpu(subject: Subject) -> float:
    return subject.process.cpu_seconds() if subject.process else 0.0


def _requests(connections: int, *headers: str) -> Callable[[Subject, Terms], Measured]:
    def measure(subject: Subject, terms: Terms) -> Measured:
        before = _cpu(subject)
        report = wrk(subject.places["http"], "/", connections, terms.seconds, *headers)
        return _of_wrk(report) | _charged(subject, before, report.requests, 1e6)

    return measure


def _of_wrk(report: WrkReport) -> Measured:
    return {
        figures.RATE: report.rate,
        figures.P50: report.p50_us,
        figures.P99: report.p99_us,
        figures.ERRORS: report.errors,
    }


def _bodies(connections: int) -> Callable[[Subject, Terms], Measured]:
    def measure(subject: Subject, terms: Terms) -> Measured:
        before = _cpu(subject)
        report = wrk(subject.places["http"], "/big", connections, terms.seconds)
        size = report.requests * BODY
        return {
            figures.THROUGHPUT: size * 8 / report.seconds / 1e9,
            figures.ERRORS: report.errors,
        } | _charged(subject, before, size / 1e9, 1)

    return measure


def _stream(subject: Subject, terms: Terms) -> Measured:
    before = _cpu(subject)
    report = iperf3(subject.places["stream"], terms.stream_bytes)
    speed = report.bytes * 8 / report.seconds / 1e9
    return {figures.THROUGHPUT: speed} | _charged(subject, before, report.bytes / 1e9, 1)


def _datagrams(flows: int) -> Callable[[Subject, Terms], Measured]:
    def measure(subject: Subject, terms: Terms) -> Measured:
        load = UdpLoad(subject.places["udp"], subject.sources(flows), terms.source_port)
        try:
            load.begin_flows()
            before = _cpu(subject)
            tally = load.run(terms.seconds)
        finally:
            load.close()
        return {figures.RATE: tally.rate, figures.LOSS: tally.loss * 100} | _charged(
            subject, before, tally.received, 1e6
        )

    return measure


def _questions(subject: Subject, terms: Terms) -> Measured:
    before = _cpu(subject)
    report = dnsperf(subject.places["dns"], terms.directory / "questions", terms.seconds)
    loss = 100 * (1 - report.completed / report.sent)
    return {figures.RATE: report.rate, figures.LOSS: loss} | _charged(
        subject, before, report.completed, 1e6
    )


def _memory(subject: Subject, terms: Terms) -> Measured:
    own = subject.process.memory() if subject.process else 0
    kernel = kernel_memory()
    with idle_connections(subject.places["idle"], terms.idle) as held:
        if not held:
            raise Unavailable("not a single connection reached the backend")
        measured: Measured = {figures.HELD: held}
        if subject.process:
            total = subject.process.memory()
            measured[figures.PROCESS] = (total - own) / held
            measured[figures.TOTAL] = total / 1e6
        after = kernel_memory()
        if kernel is not None and after is not None:
            measured[figures.KERNEL] = (after - kernel) / held
    return measured


def _churn(subject: Subject, terms: Terms) -> Measured:
    return latency_under_churn(subject, terms.seconds, terms.generations)


def _called(
    call: Call, measure: Callable[[Subject, Terms], Measured]
) -> Callable[[Subject, Terms], Measured]:
    """The same measurement from within the cluster of the subject."""

    def measure_call(subject: Subject, terms: Terms) -> Measured:
        with subject.calls[call.name]() as reached:
            return measure(reached, terms)

    return measure_call


_KEEP_ALIVE = tuple(
    Scenario(
        name=f"keep-alive-{connections}",
        title=f"Keep-alive requests, {connections} connection{'s' if connections > 1 else ''}",
        service="http",
        tool="wrk",
        figures=figures.REQUESTS,
        measure=_requests(connections),
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
        measure=_bodies(connections),
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
        measure=_datagrams(flows),
        peers=UDP_PEERS,
        baseline="nginx",
    )
    for flows in (1, 50, 500, 5000)
)

_KINDS = (
    ("requests", "keep-alive requests, 64 connections", figures.REQUESTS, _requests(64)),
    (
        "connections",
        "a connection for each request, 64 at a time",
        figures.CONNECTIONS,
        _requests(64, "Connection: close"),
    ),
    ("udp", "UDP echo, 50 flows", figures.DATAGRAMS, _datagrams(50)),
)
_PRESERVING = {"uproxy": uproxy_in_cluster("auto")}
_PRESERVED = tuple(
    Scenario(
        name=f"preserved-{call.name}-{kind}",
        title=f"Preserved addresses, {call.title}: {title}",
        tool="" if kind == "udp" else "wrk",
        figures=shown,
        measure=_called(call, measure),
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
        measure=_requests(64, "Connection: close"),
    ),
    *_BULK,
    Scenario(
        name="stream",
        title="One long stream (iperf3)",
        service="stream",
        tool="iperf3",
        figures=figures.BULK,
        measure=_stream,
        peers=BULK_PEERS,
    ),
    *_UDP,
    Scenario(
        name="dns",
        title="DNS questions to dnsmasq (dnsperf), 20 sockets",
        service="dns",
        tool="dnsperf",
        figures=figures.QUESTIONS,
        measure=_questions,
        peers=UDP_PEERS,
        baseline="nginx",
    ),
    Scenario(
        name="idle",
        title="Idle connections",
        service="idle",
        figures=figures.MEMORY,
        measure=_memory,
        fresh=True,
    ),
    Scenario(
        name="churn",
        title=f"64 connections while endpoints of {SERVICES} Services change, 100 a second",
        service="http",
        tool="wrk",
        figures=figures.CHURN,
        measure=_churn,
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
        measure=_requests(64),
        peers=PROXIES,
        workers=2,
    ),
    Scenario(
        name="two-workers-connections",
        title="A connection for each request, 64 at a time, two workers or threads",
        service="http",
        tool="wrk",
        figures=figures.CONNECTIONS,
        measure=_requests(64, "Connection: close"),
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
