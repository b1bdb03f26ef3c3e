"""What `uproxy top` shows: rates, from two samples of the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from uproxy.cli.output.columns import columns
from uproxy.cli.output.numbers import amount, byte_size
from uproxy.core.report.port_format import CountsView
from uproxy.core.report.status_format import FrontendView

_HEAD: Final = (
    "SERVICE PORT",
    "FLOWS/s",
    "ACTIVE",
    "IN/s",
    "OUT/s",
    "RETRY/s",
    "DROP/s",
    "",
)
_MIN_NAME: Final = 16


class PortName(NamedTuple):
    """The name of a Service port."""

    service: str
    port: str
    protocol: str

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        protocol = f"/{self.protocol}" if self.protocol else ""
        return f"{self.service}{port}{protocol}"


class Sample(NamedTuple):
    """The counts of every Service port at one moment."""

    time: float
    """Monotonic."""
    counts: dict[PortName, CountsView]


class Rate(NamedTuple):
    """Rates of one Service port or of all, per second; `active` is a number of flows."""

    name: PortName
    flows: float
    active: int
    client_bytes: float
    backend_bytes: float
    retries: float
    drops: float


SORT_KEYS: Final[dict[str, Callable[[Rate], float]]] = {
    "flows": lambda rate: rate.flows,
    "active": lambda rate: rate.active,
    "bytes": lambda rate: rate.client_bytes + rate.backend_bytes,
    "retries": lambda rate: rate.retries,
    "drops": lambda rate: rate.drops,
}
_ALL: Final = PortName("all", "", "")


def sample(time: float, frontends: Iterable[FrontendView]) -> Sample:
    """Frontends of one Service port have the same counts; each port is taken once."""
    return Sample(
        time,
        {
            PortName(each.service, each.service_port, each.protocol): each.counts
            for each in frontends
        },
    )


def rates(before: Sample, after: Sample, *, sort: str) -> list[Rate]:
    """The busiest first, by one of SORT_KEYS; among equals the more active, then by name."""
    seconds = _seconds(before, after)
    found = [
        _rate(name, before.counts.get(name), now, seconds) for name, now in after.counts.items()
    ]
    key = SORT_KEYS[sort]
    return sorted(found, key=lambda rate: (-key(rate), -rate.active, rate.name))


def total(found: Sequence[Rate]) -> Rate:
    """All Service ports together."""
    sums = [sum(values) for values in list(zip(*found, strict=True))[1:]] if found else [0] * 6
    return Rate(_ALL, *sums)


def rates_document(before: Sample, after: Sample, *, sort: str) -> dict[str, object]:
    """The same as `rates`, for scripts. It becomes JSON."""
    found = rates(before, after, sort=sort)
    return {
        "seconds": round(_seconds(before, after), 3),
        "total": _as_json(total(found)),
        "servicePorts": [each.name._asdict() | _as_json(each) for each in found],
    }


def table(
    found: Sequence[Rate], *, width: int | None = None, sums: Rate | None = None
) -> Iterator[str]:
    """The head, the total, then a line for each; long names lose their middle if there is no room.
    `sums` is the total, where `found` are not all Service ports."""
    lines = [sums or total(found), *found]
    cells = [(*_cells(rate), "") for rate in lines]
    if width is not None:
        others = sum(
            2 + max(len(_HEAD[column]), *(len(row[column]) for row in cells))
            for column in range(1, 7)
        )
        room = max(width - others, _MIN_NAME)
        cells = [(shortened(name, room), *rest) for name, *rest in cells]
    return columns(_HEAD, cells, right=frozenset(range(1, 7)))


def _seconds(before: Sample, after: Sample) -> float:
    return max(after.time - before.time, 0.001)


def _as_json(rate: Rate) -> dict[str, float]:
    return {
        "flowsPerSecond": round(rate.flows, 3),
        "activeFlows": rate.active,
        "clientBytesPerSecond": round(rate.client_bytes, 3),
        "backendBytesPerSecond": round(rate.backend_bytes, 3),
        "retriesPerSecond": round(rate.retries, 3),
        "dropsPerSecond": round(rate.drops, 3),
    }


def _rate(name: PortName, before: CountsView | None, now: CountsView, seconds: float) -> Rate:
    def per_second(count: Callable[[CountsView], int]) -> float:
        # A uproxy that was restarted counts from 0 again.
        return max(0, count(now) - (count(before) if before else 0)) / seconds

    return Rate(
        name,
        per_second(lambda counts: counts.flows),
        now.active_flows,
        per_second(lambda counts: counts.client_bytes),
        per_second(lambda counts: counts.backend_bytes),
        per_second(lambda counts: counts.retries),
        per_second(lambda counts: sum(counts.dropped.values())),
    )


def _cells(rate: Rate) -> tuple[str, ...]:
    return (
        str(rate.name),
        amount(rate.flows),
        amount(rate.active),
        byte_size(rate.client_bytes),
        byte_size(rate.backend_bytes),
        amount(rate.retries),
        amount(rate.drops),
    )


def shortened(name: str, room: int) -> str:
    """A name without its middle, if it is longer than that."""
    if len(name) <= room:
        return name
    end = room // 2 - 1
    return f"{name[: room - end - 2]}..{name[-end:]}"
