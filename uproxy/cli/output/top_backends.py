"""What `uproxy top --backends` shows: rates of each backend, from two samples of the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from uproxy.cli.output.backends import failures
from uproxy.cli.output.columns import Paint, columns, plain
from uproxy.cli.output.numbers import amount, byte_size, duration
from uproxy.cli.output.top import PortName, shortened
from uproxy.core.report.port_format import BackendView, PortView, quantile

_HEAD: Final[tuple[str, ...]] = (
    "POD",
    "STATE",
    "FLOWS/s",
    "ACTIVE",
    "IN/s",
    "OUT/s",
    "FAIL/s",
    "CONNECT",
    "SERVICE PORT",
)
_RIGHT: Final = frozenset(range(2, 8))
_MIN_NAME: Final = 16
_NONE: Final = "-"


class BackendName(NamedTuple):
    """A backend of a Service port."""

    port: PortName
    address: str
    pod: str

    @property
    def shown(self) -> str:
        return self.pod or self.address

    @property
    def service(self) -> str:
        return self.port.service

    def __str__(self) -> str:
        return f"{self.port} {self.pod} {self.address}"


class BackendSample(NamedTuple):
    """All backends at one moment."""

    time: float
    """Monotonic."""
    backends: dict[BackendName, BackendView]


class BackendRate(NamedTuple):
    """Rates of one backend per second; `active` is a number of flows."""

    name: BackendName
    view: BackendView
    flows: float
    active: int
    client_bytes: float
    backend_bytes: float
    retries: float
    failures: float
    connect: float | None
    """Seconds within which half of the connections between the samples were accepted; None: there
    was none."""


BACKEND_SORT_KEYS: Final[dict[str, Callable[[BackendRate], float]]] = {
    "flows": lambda rate: rate.flows,
    "active": lambda rate: rate.active,
    "bytes": lambda rate: rate.client_bytes + rate.backend_bytes,
    "retries": lambda rate: rate.retries,
    "failures": lambda rate: rate.failures,
}


def backend_sample(time: float, ports: Iterable[PortView]) -> BackendSample:
    return BackendSample(
        time,
        {
            BackendName(
                PortName(port.service, port.service_port, port.protocol), each.address, each.pod
            ): each
            for port in ports
            for each in port.backends
        },
    )


def backend_rates(before: BackendSample, after: BackendSample, *, sort: str) -> list[BackendRate]:
    """The busiest first, by one of BACKEND_SORT_KEYS; among equals the more active, then by
    name."""
    seconds = max(after.time - before.time, 0.001)
    found = [
        _rate(name, before.backends.get(name), now, seconds) for name, now in after.backends.items()
    ]
    key = BACKEND_SORT_KEYS[sort]
    return sorted(found, key=lambda rate: (-key(rate), -rate.active, rate.name))


def backends_document(
    before: BackendSample, after: BackendSample, *, sort: str
) -> dict[str, object]:
    """The same for scripts. It becomes JSON."""
    return {
        "seconds": round(max(after.time - before.time, 0.001), 3),
        "backends": [_as_json(each) for each in backend_rates(before, after, sort=sort)],
    }


def backends_table(
    found: Sequence[BackendRate], *, width: int | None = None, paint: Paint = plain
) -> Iterator[str]:
    """The head, then a line for each. If there is no room, names lose their middle; on a narrow
    terminal there is no column for Service ports."""
    head, cells = _HEAD, [_cells(each) for each in found]
    if width is not None and cells:
        head, cells = _fitting(head, cells, width)
    return columns(head, cells, right=_RIGHT, paint=paint)


def _fitting(
    head: tuple[str, ...], cells: list[tuple[str, ...]], width: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    room = width - sum(widths[1:-1]) - 2 * (len(widths) - 1)
    if room < 2 * _MIN_NAME:
        # The empty column keeps the numbers to the left of it aligned to the right.
        name = max(room, _MIN_NAME)
        return (*head[:-1], ""), [(shortened(pod, name), *rest, "") for pod, *rest, _ in cells]
    name = min(max(room - widths[-1], room // 2), widths[0])
    return head, [
        (shortened(pod, name), *rest, shortened(port, room - name)) for pod, *rest, port in cells
    ]


def _rate(
    name: BackendName, before: BackendView | None, now: BackendView, seconds: float
) -> BackendRate:
    def per_second(count: Callable[[BackendView], int]) -> float:
        # A uproxy that was restarted counts from 0 again, and so does another pod.
        return max(0, count(now) - (count(before) if before else 0)) / seconds

    earlier = before.connect_times if before is not None else []
    earlier = earlier or [0] * len(now.connect_times)
    times = [max(0, b - a) for a, b in zip(earlier, now.connect_times, strict=False)]
    return BackendRate(
        name,
        now,
        per_second(lambda each: each.flows),
        now.active_flows,
        per_second(lambda each: each.client_bytes),
        per_second(lambda each: each.backend_bytes),
        per_second(lambda each: each.retries),
        per_second(failures),
        quantile(times, 0.5),
    )


def _cells(rate: BackendRate) -> tuple[str, ...]:
    return (
        rate.name.shown,
        rate.view.state,
        amount(rate.flows),
        amount(rate.active),
        byte_size(rate.client_bytes),
        byte_size(rate.backend_bytes),
        amount(rate.failures),
        _NONE if rate.connect is None else duration(rate.connect),
        str(rate.name.port),
    )


def _as_json(rate: BackendRate) -> dict[str, object]:
    return {
        **rate.name.port._asdict(),
        "address": rate.view.address,
        "pod": rate.view.pod,
        "node": rate.view.node,
        "zone": rate.view.zone,
        "state": rate.view.state,
        "flowsPerSecond": round(rate.flows, 3),
        "activeFlows": rate.active,
        "clientBytesPerSecond": round(rate.client_bytes, 3),
        "backendBytesPerSecond": round(rate.backend_bytes, 3),
        "retriesPerSecond": round(rate.retries, 3),
        "failuresPerSecond": round(rate.failures, 3),
        "connectSeconds": rate.connect,
    }
