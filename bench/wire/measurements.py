"""How each scenario is measured: one load on one peer, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.wire import figures
from bench.wire.arrivals import latencies_of_bursts, latencies_of_trickle
from bench.wire.backends import BODY
from bench.wire.changes import latency_under_churn
from bench.wire.cluster import Call
from bench.wire.idle import idle_connections
from bench.wire.kernel import kernel_memory
from bench.wire.loads import WrkReport, dnsperf, iperf3, wrk
from bench.wire.peers import Subject
from bench.wire.processes import Unavailable
from bench.wire.udp_load import OnceLoad, UdpLoad
from bench.wire.udp_trains import TrainLoad


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
Measure = Callable[[Subject, Terms], Measured]


def _charged(subject: Subject, before: float, operations: float, scale: float) -> Measured:
    """CPU of the proxy for each operation, if there is a process to charge."""
    if subject.process is None or not operations:
        return {}
    return {figures.CPU: (subject.process.cpu_seconds() - before) / operations * scale}


def _cpu(subject: Subject) -> float:
    return subject.process.cpu_seconds() if subject.process else 0.0


def requests(
    subject: Subject, terms: Terms, *headers: str, connections: int, threads: int
) -> Measured:
    """Small answers over some connections."""
    place, before = subject.places["http"], _cpu(subject)
    report = wrk(place, "/", connections, terms.seconds, *headers, threads=threads)
    return _of_wrk(report) | _charged(subject, before, report.requests, 1e6)


def short_connections(subject: Subject, terms: Terms, *, threads: int) -> Measured:
    """A connection for each request, 64 at a time."""
    return requests(subject, terms, "Connection: close", connections=64, threads=threads)


def _of_wrk(report: WrkReport) -> Measured:
    return {
        figures.RATE: report.rate,
        figures.P50: report.p50_us,
        figures.P99: report.p99_us,
        figures.ERRORS: report.errors,
    }


def bodies(subject: Subject, terms: Terms, *, connections: int, threads: int) -> Measured:
    """Bodies of 10 MB over some connections."""
    place, before = subject.places["http"], _cpu(subject)
    report = wrk(place, "/big", connections, terms.seconds, threads=threads)
    size = report.requests * BODY
    return {
        figures.THROUGHPUT: size * 8 / report.seconds / 1e9,
        figures.ERRORS: report.errors,
    } | _charged(subject, before, size / 1e9, 1)


def stream(subject: Subject, terms: Terms) -> Measured:
    before = _cpu(subject)
    report = iperf3(subject.places["stream"], terms.stream_bytes)
    speed = report.bytes * 8 / report.seconds / 1e9
    return {figures.THROUGHPUT: speed} | _charged(subject, before, report.bytes / 1e9, 1)


def datagrams(subject: Subject, terms: Terms, *, flows: int) -> Measured:
    """Datagrams of 64 bytes and their echoes."""
    load = UdpLoad(subject.places["udp"], subject.sources(flows), terms.source_port)
    return _echoes(load, subject, terms)


def trains(subject: Subject, terms: Terms, *, flows: int) -> Measured:
    """The same with trains of datagrams, as QUIC sends them."""
    load = TrainLoad(subject.places["trains"], subject.sources(flows), terms.source_port)
    return _echoes(load, subject, terms)


def once(subject: Subject, terms: Terms) -> Measured:
    """The same with a flow for each datagram, as DNS clients have."""
    return _echoes(OnceLoad(subject.places["once"], terms.source_port), subject, terms)


def _echoes(load: UdpLoad | TrainLoad, subject: Subject, terms: Terms) -> Measured:
    try:
        load.begin_flows()
        before = _cpu(subject)
        tally = load.run(terms.seconds)
    finally:
        load.close()
    return {figures.RATE: tally.rate, figures.LOSS: tally.loss * 100} | _charged(
        subject, before, tally.received, 1e6
    )


def questions(subject: Subject, terms: Terms) -> Measured:
    before = _cpu(subject)
    report = dnsperf(subject.places["dns"], terms.directory / "questions", terms.seconds)
    loss = 100 * (1 - report.completed / report.sent)
    return {figures.RATE: report.rate, figures.LOSS: loss} | _charged(
        subject, before, report.completed, 1e6
    )


def memory(subject: Subject, terms: Terms) -> Measured:
    own = subject.process.memory() if subject.process else 0
    kernel = kernel_memory()
    with idle_connections(subject.places["idle"], terms.idle) as held:
        number = len(held)
        if not number:
            raise Unavailable("not a single connection reached the backend")
        measured: Measured = {figures.HELD: number}
        if subject.process:
            total = subject.process.memory()
            measured[figures.PROCESS] = (total - own) / number
            measured[figures.TOTAL] = total / 1e6
        after = kernel_memory()
        if kernel is not None and after is not None:
            measured[figures.KERNEL] = (after - kernel) / number
    return measured


def churn(subject: Subject, terms: Terms, *, threads: int) -> Measured:
    """Requests while endpoints of other Services change."""
    return latency_under_churn(subject, terms.seconds, terms.generations, threads=threads)


def burst(subject: Subject, terms: Terms) -> Measured:
    """Connections that come at once, after a pause."""
    before = _cpu(subject)
    found = latencies_of_bursts(subject.places["http"], terms.seconds)
    return latency_figures(found) | _charged(subject, before, len(found), 1e6)


def trickle(subject: Subject, terms: Terms) -> Measured:
    """Few messages, one at a time, beside many idle connections."""
    with idle_connections(subject.places["idle"], terms.idle) as held:
        if not held:
            raise Unavailable("not a single connection reached the backend")
        before = _cpu(subject)
        found = latencies_of_trickle(held, terms.seconds)
        return (
            {figures.HELD: len(held)}
            | latency_figures(found)
            | _charged(subject, before, len(found), 1e6)
        )


def latency_figures(seconds: Sequence[float]) -> Measured:
    """The p50 and p99 in microseconds."""
    ordered = sorted(seconds)
    return {
        name: 1e6 * ordered[int(len(ordered) * share)]
        for name, share in ((figures.P50, 0.5), (figures.P99, 0.99))
    }


def called(call: Call, measure: Callable[..., Measured]) -> Callable[..., Measured]:
    """The same measurement from within the cluster of the subject."""

    def measure_call(subject: Subject, terms: Terms, **settings: int) -> Measured:
        with subject.calls[call.name]() as reached:
            return measure(reached, terms, **settings)

    return measure_call
