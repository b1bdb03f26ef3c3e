"""Load generators: running wrk, iperf3 and dnsperf, and reading what they print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.wire.places import Place
from bench.wire.processes import Unavailable, find_program, output_of

DNS_NAME: Final = "web.bench.test"

_SCRIPT = Path(__file__).with_name("report.lua")


class WrkReport(msgspec.Struct, frozen=True):
    """The result of one run of wrk, from `report.lua`."""

    requests: int
    seconds: float
    bytes: int
    p50_us: float
    p99_us: float
    errors: int
    """Failed connections, reads and writes, timeouts, and answers with a status over 399."""

    @property
    def rate(self) -> float:
        """Requests each second."""
        return self.requests / self.seconds


class StreamReport(msgspec.Struct, frozen=True):
    """The result of one run of iperf3, as its receiver counted it."""

    bytes: int
    seconds: float


class DnsReport(msgspec.Struct, frozen=True):
    """The result of one run of dnsperf."""

    sent: int
    completed: int
    rate: float
    """Answers each second."""


def wrk(
    place: Place, path: str, connections: int, seconds: float, *headers: str, threads: int
) -> WrkReport:
    """Keep `connections` busy for whole seconds, from so many threads. Raises Unavailable."""
    program = find_program("wrk", "wrk")
    command = [program, f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", "10s", "-s", str(_SCRIPT)]
    for header in headers:
        command += ["-H", header]
    return parse_wrk(output_of([*command, f"http://{place}{path}"], timeout=seconds + 60))


def iperf3(place: Place, size: int) -> StreamReport:
    """Send a number of bytes over one connection. Raises Unavailable."""
    program = find_program("iperf3", "iperf3")
    command = [program, "-c", place.host, "-p", str(place.port), "-n", str(size), "-J"]
    return parse_iperf3(output_of(command, timeout=600))


def dnsperf(place: Place, questions: Path, seconds: float) -> DnsReport:
    """Ask from 20 sockets, with 100 queries in flight. Raises Unavailable."""
    program = find_program("dnsperf", "dnsperf")
    command = [program, "-s", place.host, "-p", str(place.port), "-d", str(questions)]
    command += ["-l", str(max(1, round(seconds))), "-c", "20", "-q", "100", "-t", "1"]
    return parse_dnsperf(output_of(command, timeout=seconds + 60))


def parse_wrk(text: str) -> WrkReport:
    """The last line is JSON. Raises Unavailable where it is not, or nothing was answered."""
    try:
        report = msgspec.json.decode(text.strip().rpartition("\n")[2], type=WrkReport)
    except msgspec.DecodeError:
        raise Unavailable(f"wrk: no report at the end of {text[-200:]!r}") from None
    if not report.requests:
        raise Unavailable(f"wrk: nothing was answered, {report.errors} errors")
    return report


def parse_iperf3(text: str) -> StreamReport:
    """From `iperf3 -J`. Raises Unavailable with its error, if it had one."""
    try:
        report: Any = json.loads(text)
    except ValueError:
        raise Unavailable(f"iperf3: not JSON: {text[-200:]!r}") from None
    if "error" in report:
        raise Unavailable(f"iperf3: {report['error']}")
    received = report["end"]["sum_received"]
    return StreamReport(received["bytes"], received["seconds"])


def parse_dnsperf(text: str) -> DnsReport:
    """From dnsperf's statistics. Raises Unavailable where there are none."""
    found = [re.search(pattern, text) for pattern in _DNSPERF]
    if not all(found):
        raise Unavailable(f"dnsperf: no statistics in {text[-200:]!r}")
    sent, completed, rate = (match[1] for match in found if match)
    return DnsReport(int(sent), int(completed), float(rate))


_DNSPERF = (
    r"Queries sent:\s+(\d+)",
    r"Queries completed:\s+(\d+)",
    r"Queries per second:\s+([\d.]+)",
)
