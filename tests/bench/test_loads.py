"""What load generators print, and what is made of it."""

from __future__ import annotations

import pytest

from bench.wire.loads import DnsReport, StreamReport, parse_dnsperf, parse_iperf3, parse_wrk
from bench.wire.processes import Unavailable

WRK = """\
Running 1s test @ http://127.0.0.1:2000/
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    95.24us  105.32us   3.04ms   97.14%
  25000 requests in 1.25s, 3.50MB read
Requests/sec:  20000.00

{"requests":25000,"seconds":1.250000,"bytes":3670016,"p50_us":80,"p99_us":410,"errors":3}
"""

DNSPERF = """\
Statistics:

  Queries sent:         57010
  Queries completed:    57000 (99.98%)
  Queries lost:         10 (0.02%)

  Response codes:       NOERROR 57000 (100.00%)
  Run time (s):         1.011242
  Queries per second:   56366.329325
"""


def test_wrk_report() -> None:
    report = parse_wrk(WRK)
    assert (report.requests, report.p50_us, report.p99_us, report.errors) == (25000, 80, 410, 3)
    assert report.rate == 20000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("unable to connect to 127.0.0.1:1\n", "no report", id="no report"),
        pytest.param("", "no report", id="nothing at all"),
        pytest.param(
            '{"requests":0,"seconds":1,"bytes":0,"p50_us":0,"p99_us":0,"errors":7}',
            "7 errors",
            id="nothing answered",
        ),
    ],
)
def test_wrk_without_result(text: str, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        parse_wrk(text)


def test_iperf3_report_is_the_receivers() -> None:
    text = """{"end": {"sum_sent": {"bytes": 110, "seconds": 1.0},
                       "sum_received": {"bytes": 100, "seconds": 2.0}}}"""
    assert parse_iperf3(text) == StreamReport(100, 2.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('{"error": "the server is busy"}', "busy", id="its own error"),
        pytest.param("iperf3: what?", "not JSON", id="not JSON"),
    ],
)
def test_iperf3_without_result(text: str, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        parse_iperf3(text)


def test_dnsperf_report() -> None:
    assert parse_dnsperf(DNSPERF) == DnsReport(57010, 57000, 56366.329325)


def test_dnsperf_without_result() -> None:
    with pytest.raises(Unavailable, match="no statistics"):
        parse_dnsperf("Error: cannot resolve")
