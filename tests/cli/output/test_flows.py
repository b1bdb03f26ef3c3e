"""The table of flows that have ended, in terminals of various widths."""

from __future__ import annotations

from datetime import UTC, date
from typing import Any

import msgspec
import pytest

from tests.flow_records import record
from uproxy.cli.output.flows import FlowTable, left_out, legend, shortened
from uproxy.cli.output.numbers import duration
from uproxy.core.cluster.pod_history import Place
from uproxy.core.report.flow_format import Ended, FlowView, flow_view

POD = "web-6d4cf56db6-x7k2p"


def flow(place: Place | None = None, **parts: Any) -> FlowView:
    """Parts of the record, or of the view."""
    of_record = {name: parts.pop(name) for name in list(parts) if name in RECORD}
    where = Place(POD, "node-a") if place is None else place
    return msgspec.structs.replace(flow_view(Ended(record(**of_record), 0), where), **parts)


RECORD = ("code", "reason", "attempts", "backend", "duration", "dial_time", "client_bytes")
GOOD = flow()
REFUSED = flow(
    code="SC", reason="ECONNREFUSED", attempts=4, duration=0.0042, dial_time=0.004, client_bytes=0
)
NOT_ALLOWED = flow(
    Place(), code="PC", reason="source_refused", backend=None, attempts=0, duration=0.0
)


def printed(*flows: FlowView, **options: Any) -> list[str]:
    return list(FlowTable(zone=UTC, today=date(2023, 11, 14), **options).lines(flows))


def test_in_a_pipe() -> None:
    assert printed(GOOD, REFUSED, NOT_ALLOWED) == [
        "START     LASTED  CLIENT     SERVICE           POD                      IN    OUT   DIAL"
        "  CODE  REASON",
        "22:13:20    1.5s  192.0.2.7  default/web:http  web-6d4cf56db6-x7k2p  120 B  45 kB  2.0ms"
        "  --",
        "22:13:20   4.2ms  192.0.2.7  default/web:http  web-6d4cf56db6-x7k2p    0 B  45 kB  4.0ms"
        "  SC    ECONNREFUSED, 4 dials",
        "22:13:20     0ms  192.0.2.7  default/web:http  -                     120 B  45 kB      -"
        "  PC    source_refused",
    ]


def test_at_120_columns() -> None:
    long = msgspec.structs.replace(
        REFUSED, service="team-payments/checkout-frontend", client="192.168.100.200"
    )
    head, _, bad = printed(GOOD, long, width=120)
    assert len(bad) == 120
    assert head.split()[3:5] == ["SERVICE", "POD"]
    assert bad.split()[3:5] == ["team-pa..d:http", "web-6d4c..b6-x7k2p"]
    assert bad.endswith("SC    ECONNREFUSED, 4 dials")


def test_at_80_columns_a_bad_end_has_its_pod_below() -> None:
    assert printed(GOOD, REFUSED, NOT_ALLOWED, width=80) == [
        "START     LASTED  CLIENT     SERVICE              IN    OUT  CODE  REASON",
        "22:13:20    1.5s  192.0.2.7  default/web:http  120 B  45 kB  --",
        "22:13:20   4.2ms  192.0.2.7  default/web:http    0 B  45 kB  SC",
        "    web-6d4cf56db6-x7k2p: ECONNREFUSED, 4 dials",
        "22:13:20     0ms  192.0.2.7  default/web:http  120 B  45 kB  PC",
        "    source_refused",
    ]


def test_wide() -> None:
    head, line = printed(GOOD, wide=True, width=80)
    names = "START LASTED CLIENT FRONTEND SERVICE POD NODE BACKEND IN OUT DIAL RTT RESENT CODE"
    assert " ".join(head.split()) == f"{names} REASON"
    assert " ".join(line.split()) == (
        "2023-11-14 22:13:20.250 1.5s 192.0.2.7:50123 10.96.0.1:80/TCP default/web:http "
        f"{POD} node-a 10.0.0.1:8080 120 B 45 kB 2.0ms 0.2ms/1.2ms 0/3 --"
    )


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    """Addresses are never cut; below 80 columns the terminal breaks the line."""
    flows = [
        msgspec.structs.replace(
            each, service="a-namespace-of-a-team/a-service-with-a-name", client="192.168.100.200"
        )
        for each in (GOOD, REFUSED, NOT_ALLOWED)
    ]
    lines = printed(*flows, width=width)
    assert all("192.168.100.200" in each for each in lines[1:] if not each.startswith(" "))
    assert max(map(len, lines)) <= max(width, 80)


def test_lines_that_come_later_fit_below() -> None:
    table = FlowTable(zone=UTC)
    first = list(table.lines([GOOD]))
    later = list(table.lines([REFUSED]))
    assert len(first) == 2
    assert len(later) == 1, "no second head"
    assert later[0].index("SC") == first[1].index("--")
    assert list(table.lines([])) == []


def test_nothing_is_no_head() -> None:
    assert printed() == []


def test_earlier_days_have_their_date() -> None:
    table = FlowTable(zone=UTC, today=date(2023, 11, 15))
    _, line = table.lines([GOOD])
    assert line.startswith("Nov 14 22:13  ")


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    _, line = printed(flow(start="soon"))
    assert line.startswith("soon ")


def test_codes_of_bad_ends_are_red() -> None:
    _, good, bad = printed(GOOD, REFUSED, colours=True)
    assert "\x1b" not in good
    assert "\x1b[31mSC" in bad


def test_the_legend_explains_each_bad_code_once() -> None:
    lines = list(
        legend([GOOD, REFUSED, REFUSED, NOT_ALLOWED, flow(code="??", bad=True)], width=None)
    )
    assert lines == [
        "PC: uproxy refused it, or had an error, before any backend had answered",
        "SC: the backend refused it, did not answer, or reset it, before any backend had answered",
    ]


def test_names_keep_their_ends() -> None:
    assert shortened(POD, 20) == POD
    assert shortened(POD, 12) == "web-6..x7k2p"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0, "0 ms"),
        (0.0003, "0.3 ms"),
        (0.00996, "10 ms"),
        (0.012, "12 ms"),
        (0.9996, "1.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1m"),
        (200, "3m20s"),
        (3599.6, "1h"),
        (18120, "5h2m"),
        (86399, "1d"),
        (100000, "1d4h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_left_out_is_counted() -> None:
    assert left_out(1234) == "1,234 more flows ended meanwhile, too many to show"
