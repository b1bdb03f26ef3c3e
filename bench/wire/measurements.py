"""How each scenario is measured: one load on one peer, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.wire import figures
from bench.wire.backends import BODY
from bench.wire.changes import latency_under_churn
from bench.wire.cluster import Call
from bench.wire.idle import idle_connections
from bench.wire.kernel import kernel_memory
from bench.wire.loads import WrkReport, dnsperf, iperf3, wrk
from bench.wire.peers import Subject
from bench.wire.processes import Unavailable
from bench.wire.udp_load import UdpLoad


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


def _charged(subject: Subject, before: float, operations: float, scale: float) -> Measured:
    """CPU of the proxy for each operation, if there is a process to charge."""
    if subject.process is None or not operations:
        return {}
    return {figures.CPU: (subject.process.cpu_seconds() - before) / operations * scale}


def _cpu(subject: Subject) -> float:
    return subject.process.cpu_seconds() if subject.process else 0.0


def requests(connections: int, *headers: str) -> Callable[[Subject, Terms], Measured]:
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


def bodies(connections: int) -> Callable[[Subject, Terms], Measured]:
    def measure(subject: Subject, terms: Terms) -> Measured:
        before = _cpu(subject)
        report = wrk(subject.places["http"], "/big", connections, terms.seconds)
        size = report.requests * BODY
        return {
            figures.THROUGHPUT: size * 8 / report.seconds / 1e9,
            figures.ERRORS: report.errors,
        } | _charged(subject, before, size / 1e9, 1)

    return measure


def stream(subject: Subject, terms: Terms) -> Measured:
    before = _cpu(subject)
    report = iperf3(subject.places["stream"], terms.stream_bytes)
    speed = report.bytes * 8 / report.seconds / 1e9
    return {figures.THROUGHPUT: speed} | _charged(subject, before, report.bytes / 1e9, 1)


def datagrams(flows: int) -> Callable[[Subject, Terms], Measured]:
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


def churn(subject: Subject, terms: Terms) -> Measured:
    return latency_under_churn(subject, terms.seconds, terms.generations)


def called(
    call: Call, measure: Callable[[Subject, Terms], Measured]
) -> Callable[[Subject, Terms], Measured]:
    """The same measurement from within the cluster of the subject."""

    def measure_call(subject: Subject, terms: Terms) -> Measured:
        with subject.calls[call.name]() as reached:
            return measure(reached, terms)

    return measure_call
