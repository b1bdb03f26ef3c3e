"""What `uproxy explain` prints about one Service, as lines of text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from uproxy.cli.output.columns import Paint, columns, paragraph, plain
from uproxy.cli.output.hints import drop_meaning, hints
from uproxy.cli.output.numbers import amount, counted, octets
from uproxy.cli.output.status import backend_count, health_check
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.report.status import FrontendState, ObjectStatus
from uproxy.core.report.status_format import CountsView, FrontendView, StatusView

_HEAD: Final = ("", "FRONTEND", "KIND", "STATE", "BACKENDS", "REASON")
_MOST_BACKENDS: Final = 20


def known(status: StatusView, service: str) -> bool:
    """Whether anything is said about a Service."""
    return service in _names(status)


def explanation(
    status: StatusView, service: str, *, width: int | None = None, paint: Paint = plain
) -> Iterator[str]:
    """How a Service is served, or why not. `status` is that of this Service only."""
    yield from paragraph(verdict(status, service), width=width)
    for reason in [each.reason for each in status.services if status.frontends]:
        yield from paragraph(f"But: {reason}.", width=width)
    yield from _complaints(status.objects, service, width)
    for port in _by_port(status.frontends):
        yield from _port(port, status.client_address_reason, width, paint)
    if status.health_checks:
        yield ""
        rows = [health_check(each)[2:] for each in status.health_checks]
        yield from columns((), [("Health check:", *row) for row in rows], width=width)
    found = hints(service, status.frontends, status.health_checks)
    if found:
        yield ""
        yield "What to do:"
    for hint in found:
        yield from paragraph(f"  * {hint}", width=width, indent="    ")


def verdict(status: StatusView, service: str) -> str:
    """One sentence."""
    total = len(status.frontends)
    if not total:
        reasons = "; ".join(each.reason for each in status.services)
        return f"{service} is not served: {reasons or 'it wants no frontends'}."
    degraded = sum(each.state == FrontendState.DEGRADED for each in status.frontends)
    serving = sum(each.state == FrontendState.SERVING for each in status.frontends)
    if degraded:
        where = _all_of(total) if degraded == total else f"{degraded} of its {total} frontends"
        return f"{service} is open on {where}, and no backend answers."
    if serving == total:
        return f"{service} is served on {_all_of(total)}."
    if serving:
        return f"{service} is served on {serving} of {counted(total, 'frontend')}."
    return f"{service} is not served on {'its frontend' if total == 1 else 'any frontend'}."


def unknown(status: StatusView, service: str) -> str:
    """What to say of a Service that uproxy has never heard of; `status` is that of all."""
    names = sorted(_names(status))
    near = _near(service, names)
    if not names:
        way_out = "it knows of none" + ("" if status.synced else " yet: still listing")
    elif near:
        way_out = f"did you mean {' or '.join(near)}?"
    else:
        way_out = f"uproxy status lists the {counted(len(names), 'Service')} that it knows"
    if status.objects:
        way_out += f"; {counted(len(status.objects), 'object')} cannot be used, see: uproxy status"
    return f"no Service {service}; {way_out}"


def _names(status: StatusView) -> set[str]:
    return {each.service for each in status.frontends} | {each.service for each in status.services}


def _near(service: str, names: Sequence[str]) -> list[str]:
    """Up to three names like it: the same in other namespaces first."""
    name = service.partition("/")[2]
    by_name: dict[str, list[str]] = {}
    for each in names:
        by_name.setdefault(each.partition("/")[2], []).append(each)
    close = difflib.get_close_matches(name, by_name, n=3, cutoff=0.7)
    return [each for found in close for each in by_name[found]][:3]


def _all_of(total: int) -> str:
    return "its only frontend" if total == 1 else f"all of its {total} frontends"


def _by_port(frontends: Iterable[FrontendView]) -> Iterator[list[FrontendView]]:
    ports: dict[tuple[str, str], list[FrontendView]] = {}
    for each in frontends:
        ports.setdefault((each.service_port, each.protocol), []).append(each)
    yield from ports.values()


def _port(
    frontends: Sequence[FrontendView], no_preserving: str, width: int | None, paint: Paint
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
    yield from columns((), list(_facts(frontends, no_preserving)), width=width)
    yield from _backends(frontends)


def _facts(frontends: Sequence[FrontendView], no_preserving: str) -> Iterator[tuple[str, str, str]]:
    each = frontends[0]
    yield "", "Balancer", each.balancer
    affinity = "none"
    if each.session_affinity is not None:
        seconds = each.session_affinity.timeout_seconds
        affinity = f"ClientIP: a client keeps its backend until {seconds} s after its last flow"
    yield "", "Affinity", affinity
    yield "", "Clients", _clients(frontends, no_preserving)
    yield "", "Flows", _flows(each.counts, datagrams=_has_datagrams(each.protocol))
    for reason, count in each.counts.dropped.items():
        meaning = drop_meaning(reason)
        text = f"{amount(count)} {reason}" + (f": {meaning}" if meaning else "")
        yield "", "Dropped", text


def _has_datagrams(protocol: str) -> bool:
    # Another version of uproxy may know other protocols.
    return protocol in TRANSPORTS and not TRANSPORTS[protocol].is_stream


def _clients(frontends: Sequence[FrontendView], no_preserving: str) -> str:
    """What backends see of them."""
    version = frontends[0].proxy_protocol
    if version:
        return f"backends get the client's address in a PROXY header, {version}"
    if any(each.client_address == "preserved" for each in frontends):
        return "backends see the address of clients from outside"
    text = "backends see this node's address"
    if no_preserving and any(each.local_backends is not None for each in frontends):
        text += f", not the client's: {no_preserving}"
    return text


def _flows(counts: CountsView, *, datagrams: bool) -> str:
    text = f"{amount(counts.flows)} so far, {amount(counts.active_flows)} active; "
    text += f"{octets(counts.client_bytes)} from clients, {octets(counts.backend_bytes)} to them"
    if datagrams:
        text += f" ({amount(counts.client_datagrams)} and {amount(counts.backend_datagrams)}"
        text += " datagrams)"
    if counts.dial_failures or counts.retries:
        text += f"; {counted(counts.dial_failures, 'failed dial')}"
        text += f", {amount(counts.retries)} retried"
    return text


def _backends(frontends: Sequence[FrontendView]) -> Iterator[str]:
    """Each set of backends once, with the frontends that have it."""
    sets: dict[tuple[object, ...], list[FrontendView]] = {}
    for each in frontends:
        local = each.local_backends
        key = (tuple(each.backends), None if local is None else tuple(local))
        sets.setdefault(key, []).append(each)
    for having in sets.values():
        backends, local = having[0].backends, having[0].local_backends
        if not backends and not local:
            continue
        of = "" if len(sets) == 1 else f" of {', '.join(each.frontend for each in having)}"
        yield ""
        yield f"  Backends{of}"
        shown = list(dict.fromkeys([*(local or ()), *backends]))
        failing = frozenset(having[0].failing)
        shown.sort(key=lambda each: each not in failing)
        rows = [
            ("  ", each, _remarks(_place(each, local), each in failing))
            for each in shown[:_MOST_BACKENDS]
        ]
        yield from columns((), rows)
        if len(shown) > _MOST_BACKENDS:
            yield f"    ... and {len(shown) - _MOST_BACKENDS:,} more: -o json"


def _remarks(place: str, failing: bool) -> str:
    return ", ".join(filter(None, ("does not answer" if failing else "", place)))


def _place(backend: str, local: list[str] | None) -> str:
    """Which clients get a backend; with externalTrafficPolicy Local that depends on its node."""
    if local is None:
        return ""
    if backend in local:
        return "on this node"
    return "elsewhere: not for clients from outside (policy Local)"


def _complaints(objects: Iterable[ObjectStatus], service: str, width: int | None) -> Iterator[str]:
    """An update of the Service that cannot be used: what is served is the version before."""
    for each in objects:
        if each.where == f"Service {service}":
            field = f"{each.field}: " if each.field else ""
            yield from paragraph(
                f"Its last version cannot be used: {field}{each.reason}.", width=width
            )
