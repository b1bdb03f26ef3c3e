"""The last five minutes of all traffic together, so that a page that was just opened has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.report.recent_events import EventView
from uproxy.core.route import ServicePortName

PERIOD: Final = 2.0
"""Seconds between two samples."""
KEPT: Final = 150
"""Samples: five minutes."""


class Sample(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The traffic of one period. Numbers are per second, but for `active_flows`."""

    time: float
    """When the period ended, in Unix seconds."""
    flows: float
    active_flows: int
    """At the end of the period."""
    client_bytes: float
    backend_bytes: float
    failures: float
    """As `failures` counts them."""


class HistoryView(msgspec.Struct, rename="camel", gc=False):
    """What /api/v1/history shows."""

    period: float
    """Seconds between two samples."""
    samples: list[Sample]
    """The oldest comes first."""
    events: list[EventView]
    """The newest comes first."""


class _Counts(NamedTuple):
    flows: int
    client_bytes: int
    backend_bytes: int
    failures: int


_NOTHING: Final = _Counts(0, 0, 0, 0)


class History:
    """Takes the counts at regular intervals, and keeps the rates of the last `KEPT` periods."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: tuple[float, dict[ServicePortName, _Counts]] | None = None

    def add(self, counters: Mapping[ServicePortName, Counters], *, now: float, wall: float) -> None:
        """Take the counts of this moment: `now` on the monotonic clock, and `wall` in Unix time."""
        counts = {name: _counts(each) for name, each in counters.items()}
        if self._before is not None:
            since, before = self._before
            active = sum(each.active for each in counters.values())
            if self.samples and wall <= self.samples[-1].time:
                self.samples.clear()  # The clock was set back, so their times mean nothing.
            # The counts of a Service are forgotten once it is removed. If they were still part of
            # the older sum, they would be subtracted from what all others have counted since.
            known = [each for name, each in before.items() if name in counts]
            self.samples.append(
                _sample(_sum(known), _sum(counts.values()), active, now - since, wall)
            )
        self._before = now, counts

    def after(self, time: float) -> list[Sample]:
        """The samples whose period ended later, in Unix seconds; the oldest comes first. If that
        time has not come yet, these are all samples: the client got that time before the clock was
        set back, and would otherwise get no sample until then."""
        if self.samples and time > self.samples[-1].time:
            return list(self.samples)
        return [each for each in self.samples if each.time > time]


def parse_after(query: Mapping[str, str]) -> float:
    """The time after which samples are asked for, from the parameters of a URL. Raises ValueError,
    with what would be right."""
    unknown = sorted(set(query) - {"after"})
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}: use after")
    text = query.get("after", "0")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"after={text!r} is not a Unix time in seconds") from None


def failures(dial_failures: int, dropped: Mapping[str, int]) -> int:
    """How much went wrong: attempts to reach a backend that failed, whether or not another one
    succeeded, and what was dropped for another reason."""
    return dial_failures + sum(dropped.values()) - dropped.get(DropReason.DIAL_FAILED, 0)


def _counts(each: Counters) -> _Counts:
    failed = failures(each.dial_failures, each.dropped)
    return _Counts(each.flows, each.client_bytes, each.backend_bytes, failed)


def _sum(counts: Iterable[_Counts]) -> _Counts:
    return _Counts(*map(sum, zip(_NOTHING, *counts, strict=True)))


def _sample(before: _Counts, after: _Counts, active: int, seconds: float, wall: float) -> Sample:
    # A Service that was forgotten and is there again counts from 0.
    rates = (
        round(max(0, now - then) / max(seconds, 0.001), 2)
        for then, now in zip(before, after, strict=True)
    )
    flows, client_bytes, backend_bytes, failed = rates
    return Sample(wall, flows, active, client_bytes, backend_bytes, failed)
