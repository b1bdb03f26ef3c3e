"""What `uproxy status` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from uproxy.cli.output.columns import (
    Paint,
    column_blocks,
    columns,
    grouped_blocks,
    paragraph,
    plain,
)
from uproxy.cli.output.load_balancer import sections
from uproxy.cli.output.numbers import amount, counted
from uproxy.core.report.status import ApiServerStatus, FrontendState
from uproxy.core.report.status_format import FrontendView, HealthCheckView, ServiceView, StatusView

READY: Final = "ready"
_HEAD: Final = ("SERVICE", "KIND", "FRONTEND", "STATE", "BACKENDS", "FLOWS", "REASON")
_WIDE: Final = (*_HEAD[:-1], "BALANCER", "AFFINITY", "ENDPOINTS", "REASON")
_NUMBERS: Final = frozenset({4, 5})
_MAX_REASONS: Final = 5
_URGENCY: Final = ("failed", "degraded", "conflict", "pending", "paused", "elsewhere", "serving")


def overview(
    status: StatusView, *, wide: bool = False, width: int | None = None, paint: Paint = plain
) -> Iterator[str]:
    """Everything: a summary, the frontends, and what is not served or needs attention."""
    yield from beginning(status, width)
    yield from frontend_table(status.frontends, wide=wide, width=width, paint=paint)
    yield from ending(status, width)


def beginning(status: StatusView, width: int | None) -> Iterator[str]:
    """The summary, and why uproxy is not ready or needs attention."""
    yield from paragraph(summary(status), width=width)
    for title, reasons in (
        ("Not ready", status.not_ready),
        ("Not healthy, so load balancers use other nodes", status.not_healthy),
        ("Notes", status.notes),
    ):
        yield from _section(title, [("", each) for each in _first_few(reasons)], width)


def ending(status: StatusView, width: int | None) -> Iterator[str]:
    """What follows the frontends."""
    for block in unserved_blocks(status.services, width):
        yield from block
    yield from remaining(status, width)


def unserved_blocks(services: Sequence[ServiceView], width: int | None) -> Iterator[Sequence[str]]:
    """The title above Services that are not served, then the lines of each; nothing if there are
    none."""
    if services:
        yield ["", "Not served, or only in part:"]
        rows = [("", each.service, each.reason) for each in services]
        yield from map(list, column_blocks(rows, width))


def remaining(status: StatusView, width: int | None) -> Iterator[str]:
    """What is about no single Service, or about what is not one yet."""
    yield from _section(
        "Cannot be used",
        [("", f"{each.where}:", _problem(each.field, each.reason)) for each in status.objects],
        width,
    )
    for title, rows in sections(status):
        yield from _section(title, rows, width)
    yield from _section("Health checks", list(map(health_check, status.health_checks)), width)
    yield from _section("API server", list(map(_api_server, status.api_servers)), width)
    yield from _section("Workers", list(_workers(status)), width)


def frontend_table(
    frontends: Sequence[FrontendView],
    *,
    wide: bool = False,
    width: int | None = None,
    paint: Paint = plain,
) -> Iterator[str]:
    """An empty line and the table, or nothing if there are no frontends."""
    if frontends:
        yield ""
        for block in frontend_blocks(frontends, wide=wide, width=width, paint=paint):
            yield from block


def frontend_blocks(
    frontends: Sequence[FrontendView],
    *,
    wide: bool = False,
    width: int | None = None,
    paint: Paint = plain,
) -> Iterator[list[str]]:
    """The lines of the table's head, then those of each frontend."""
    rows = [cells(each, wide=wide) for each in frontends]
    head = _WIDE if wide else _HEAD
    return grouped_blocks(head, rows, width=width, paint=paint, right=_NUMBERS)


def frontend_rows(frontends: Sequence[FrontendView], *, wide: bool = False) -> Iterator[str]:
    """The table without its head: a line for each frontend, however long."""
    if frontends:
        rows = [cells(each, wide=wide) for each in frontends]
        yield from columns((), rows, right=_NUMBERS)


def urgency(each: FrontendView) -> int:
    """A sort key that puts first what a person should see first."""
    return _URGENCY.index(each.state) if each.state in _URGENCY else len(_URGENCY)


def summary(status: StatusView) -> str:
    """One line: whether uproxy is ready, and how much it serves."""
    states = Counter(each.state for each in status.frontends)
    known = [f"{states[state]:,} {state}" for state in FrontendState if states[state]]
    parts = [counted(len(status.frontends), "frontend")]
    if known and (len(known) > 1 or not states[FrontendState.SERVING]):
        parts[0] += f" ({', '.join(known)})"
    parts.append(counted(sum(each.active_flows for each in status.workers), "active flow"))
    parts.append(counted(len(status.workers), "worker"))
    return f"Node {status.node}: {readiness(status)}; {', '.join(parts)}."


def readiness(status: StatusView) -> str:
    """What /readyz and /healthz say, in a word; READY only if both succeed."""
    if status.not_ready:
        return "not ready"
    return "not healthy" if status.not_healthy else READY


def backend_count(each: FrontendView) -> str:
    """How many backends there are: "3", or "1/3" if clients from outside get only one of them."""
    total = str(len(each.backends))
    return total if each.local_backends is None else f"{len(each.local_backends)}/{total}"


def health_check(each: HealthCheckView) -> tuple[str, ...]:
    """Cells of one health check."""
    count = sum(each.counts.values())
    answer = f"answers {200 if count else 503}: {counted(count, 'local endpoint')}"
    return "", each.service, f"port {each.port}", each.reason or answer


def cells(each: FrontendView, *, wide: bool = False) -> tuple[str, ...]:
    """The row of a frontend."""
    return _wide_row(each) if wide else _row(each)


def _row(each: FrontendView) -> tuple[str, ...]:
    return (
        each.service,
        each.kind,
        each.frontend,
        each.state,
        backend_count(each),
        amount(each.counts.active_flows),
        each.reason,
    )


def _wide_row(each: FrontendView) -> tuple[str, ...]:
    service, *cells, reason = _row(each)
    affinity = each.session_affinity
    port = f":{each.service_port}" if each.service_port else ""
    return (
        f"{service}{port}",
        *cells,
        each.balancer,
        f"ClientIP {affinity.timeout_seconds}s" if affinity else "-",
        ",".join(_endpoints(each)) or "-",
        reason,
    )


def _endpoints(each: FrontendView) -> Iterable[str]:
    """Backends; a "*" marks those that clients from outside get, if they do not get all."""
    local = frozenset(each.local_backends or ())
    return (f"{backend}*" if backend in local else backend for backend in each.backends)


def _first_few(reasons: Sequence[str]) -> Iterator[str]:
    """The first few reasons; there can be as many as frontends."""
    yield from reasons[:_MAX_REASONS]
    if len(reasons) > _MAX_REASONS:
        yield f"... and {len(reasons) - _MAX_REASONS:,} more reasons"


def _problem(field: str, reason: str) -> str:
    return f"{field}: {reason}" if field else reason


def _api_server(each: ApiServerStatus) -> tuple[str, ...]:
    use = "in use" if each.in_use else each.reason or "in reserve"
    return "", each.address, use, f"from {each.origin}"


def _workers(status: StatusView) -> Iterator[tuple[str, ...]]:
    for each in status.workers:
        restarts = f"replaced {counted(each.restarts, 'time')}" if each.restarts else ""
        flows = counted(each.active_flows, "active flow")
        if isinstance(each.most_flows, int):
            flows += f", {each.most_flows:,} at most"
        relays = f"uses {each.engine}" if each.engine else ""
        remarks = "; ".join(filter(None, (restarts, each.reason)))
        yield "", str(each.index), f"pid {each.pid}", flows, relays, remarks


def _section(title: str, rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """A title and rows, or nothing if there are no rows. The first cell of a row is empty, as its
    indentation."""
    if rows:
        yield ""
        yield f"{title}:"
        yield from columns((), rows, width=width)
