"""What `uproxy explain` prints about one Service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from shlex import quote
from typing import Final

from uproxy.cli.output.backends import backend_table, failed_dials, pod_names
from uproxy.cli.output.columns import Paint, columns, paragraph, plain
from uproxy.cli.output.hints import drop_meaning, hints
from uproxy.cli.output.load_balancer import (
    announcers,
    lacking,
    served_elsewhere,
    service_rows,
    unannounced,
)
from uproxy.cli.output.numbers import amount, byte_size, counted
from uproxy.cli.output.status import backend_count, health_check
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.report.port_format import CountsView, PortView
from uproxy.core.report.status import FrontendState, ObjectStatus
from uproxy.core.report.status_format import FrontendView, ServiceView, StatusView

_HEAD: Final = ("", "FRONTEND", "KIND", "STATE", "BACKENDS", "REASON")


def explanation(
    status: StatusView, service: str, *, width: int | None = None, paint: Paint = plain
) -> Iterator[str]:
    """How a Service is served, or why it is not. `status` is that of this Service only."""
    yield from paragraph(verdict(status, service), width=width)
    states = (FrontendState.SERVING, FrontendState.DEGRADED)
    served = any(each.state in states for each in status.frontends)
    for reason in [each.reason for each in status.services if status.frontends]:
        end = "" if reason.endswith("?") else "."
        yield from paragraph(f"{'But' if served else 'Also'}: {reason}{end}", width=width)
    yield from _unusable_version(status.objects, service, width)
    rows = list(service_rows(status, service))
    if rows:
        yield ""
        yield "Load balancer"
        yield from columns((), rows, width=width)
    ports = {(each.service_port, each.protocol): each for each in status.ports or ()}
    for key, frontends in _by_port(status.frontends).items():
        yield from _port(frontends, status, ports.get(key), width, paint)
    if status.health_checks:
        yield ""
        checks = [("Health check:", *health_check(each)[2:]) for each in status.health_checks]
        yield from columns((), checks, width=width)
    elsewhere = {each.frontend for each in served_elsewhere(status)}
    here = [each for each in status.frontends if each.frontend not in elsewhere]
    pods = pod_names(status.ports or ())
    # Rows about the load balancer say why uproxy gives it no address.
    reasons = [] if rows else [each.reason for each in status.services]
    found = hints(service, here, status.health_checks, unannounced(status, service), pods, reasons)
    if found:
        yield ""
        yield "What to do:"
    for hint in found:
        yield from paragraph(f"  * {hint}", width=width, indent="    ")


def verdict(status: StatusView, service: str) -> str:
    """How well a Service is served, in one or two sentences."""
    elsewhere, but = served_elsewhere(status), lacking(status, service)
    if not elsewhere:
        return _verdict(status.services, status.frontends, service, but)
    moved = {each.frontend for each in elsewhere}
    here = [each for each in status.frontends if each.frontend not in moved]
    nodes = " and ".join(announcers(status, elsewhere))
    addresses = ", ".join(dict.fromkeys(each.address for each in elsewhere))
    there = f"Clients of {addresses} are served by {nodes}."
    if not here:
        return f"On this node, {service} waits to take over. {there}"
    return f"{_verdict(status.services, here, service, but)} {there}"


def _verdict(
    services: Sequence[ServiceView], frontends: Sequence[FrontendView], service: str, but: str
) -> str:
    total = len(frontends)
    but = but and f", but {but}"
    if not total:
        reasons = "; ".join(each.reason for each in services)
        return f"{service} is not served: {reasons or 'it has no frontends'}."
    unanswered = sum(each.none_answers for each in frontends)
    if unanswered:
        number = "any" if unanswered == total else unanswered
        where = _all(total) if total == 1 else f"{number} of its {total} frontends"
        return f"{service} is open, but no backend answers on {where}."
    degraded = [each for each in frontends if each.state == FrontendState.DEGRADED]
    serving = sum(each.state == FrontendState.SERVING for each in frontends) + len(degraded)
    failing = dict.fromkeys(each.reason for each in degraded)
    but += "".join(f", but {reason}" for reason in failing)
    if serving == total:
        return f"{service} is served on {_all(total)}{but}."
    if serving:
        return f"{service} is served on {serving} of {counted(total, 'frontend')}{but}."
    return f"{service} is not served on {'its frontend' if total == 1 else 'any frontend'}."


def _all(total: int) -> str:
    return "its only frontend" if total == 1 else f"all of its {total} frontends"


def _by_port(frontends: Iterable[FrontendView]) -> dict[tuple[str, str], list[FrontendView]]:
    ports: dict[tuple[str, str], list[FrontendView]] = {}
    for each in frontends:
        ports.setdefault((each.service_port, each.protocol), []).append(each)
    return ports


def _port(
    frontends: Sequence[FrontendView],
    status: StatusView,
    port: PortView | None,
    width: int | None,
    paint: Paint,
) -> Iterator[str]:
    first = frontends[0]
    yield ""
    yield f"Port {first.service_port or '(unnamed)'}/{first.protocol}"
    rows = [
        ("", each.frontend, each.kind, each.state, backend_count(each), each.reason)
        for each in frontends
    ]
    yield from columns(_HEAD, rows, width=width, paint=paint, right=frozenset({4}))
    yield ""
    yield from columns((), list(_facts(frontends, port, status.client_address_reason)), width=width)
    if port is not None:
        failing = {each for frontend in frontends for each in frontend.failing}
        workers = len(status.workers)
        yield from backend_table(port, failing, workers=workers, width=width, paint=paint)


def _facts(
    frontends: Sequence[FrontendView], port: PortView | None, not_preserved: str
) -> Iterator[tuple[str, str, str]]:
    each = frontends[0]
    yield "", "Balancer", each.balancer
    affinity = "none"
    if each.session_affinity is not None:
        seconds = each.session_affinity.timeout_seconds
        affinity = f"ClientIP: a client keeps its backend until {seconds} s after its last flow"
    yield "", "Affinity", affinity
    yield "", "Clients", _clients(frontends, not_preserved)
    yield "", "Flows", _flows(each.counts, port, datagrams=_has_datagrams(each.protocol))
    for reason, count in each.counts.dropped.items():
        meaning = drop_meaning(reason)
        text = f"{amount(count)} {reason}" + (f": {meaning}" if meaning else "")
        yield "", "Dropped", text
    if each.counts.dropped or each.counts.dial_failures:
        yield (
            "",
            "Bad ends",
            f"their clients, pods and reasons: uproxy flows --bad {quote(each.service)}",
        )


def _has_datagrams(protocol: str) -> bool:
    # Another version of uproxy may know other protocols.
    return protocol in TRANSPORTS and not TRANSPORTS[protocol].is_stream


def _clients(frontends: Sequence[FrontendView], not_preserved: str) -> str:
    """Which address backends see."""
    version = frontends[0].proxy_protocol
    if version:
        return f"backends get the client's address in a PROXY header ({version})"
    shown = {each.client_address for each in frontends}
    text = "backends see this node's address"
    if "preserved" in shown:
        text = "backends see the addresses of clients from outside"
        text += " and of this node's pods" * ("pods" in shown)
    elif "pods" in shown:
        text = "backends see the addresses of this node's pods at the ClusterIP"
    reasons = dict.fromkeys(each.client_address_reason for each in frontends)
    told = "; ".join(filter(None, reasons))
    if told:
        less = (
            ", not the client's" if shown == {"node"} else ", but not all that the Service asks for"
        )
        text += f"{less}: {told}"
    elif (
        "preserved" not in shown
        and not_preserved
        and any(each.local_backends is not None for each in frontends)
    ):
        text += f", not the client's: {not_preserved}"
    return text


def _flows(counts: CountsView, port: PortView | None, *, datagrams: bool) -> str:
    text = f"{amount(counts.flows)} so far, {amount(counts.active_flows)} active; "
    text += (
        f"{byte_size(counts.client_bytes)} from clients, {byte_size(counts.backend_bytes)} to them"
    )
    if datagrams:
        text += f" ({amount(counts.client_datagrams)} and {amount(counts.backend_datagrams)}"
        text += " datagrams)"
    if counts.dial_failures or counts.retries:
        text += f"; {counted(counts.dial_failures, 'failed dial')}"
        by_backend = failed_dials(port) if port is not None else ""
        text += f" ({by_backend})" if by_backend else ""
        text += f", {amount(counts.retries)} retried"
    return text


def _unusable_version(
    objects: Iterable[ObjectStatus], service: str, width: int | None
) -> Iterator[str]:
    """Why the newest version of the Service cannot be used; the one before it is still served."""
    for each in objects:
        if each.where == f"Service {service}":
            field = f"{each.field}: " if each.field else ""
            yield from paragraph(
                f"Its newest version cannot be used: {field}{each.reason}.", width=width
            )
