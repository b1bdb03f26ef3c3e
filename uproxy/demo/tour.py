"""What the demo prints: what is served, and a command to try for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from uproxy.core.objects import ObjectName
from uproxy.core.status import FrontendStatus, Status


class Row(NamedTuple):
    service: str
    what: str
    frontend: str
    state: str
    command: str


_DNS = "dig +short +notcp @{address} -p {port} TXT whoami.demo"
_DNS_TCP = "dig +short +tcp @{address} -p {port} TXT whoami.demo"
_HTTP = "curl http://{address}:{port}"


def rows(status: Status) -> list[Row]:
    """One row for each frontend and health check, and for each Service that is not served."""
    found = [_frontend(each) for each in status.frontends if each.kind != "ClusterIP"]
    for check in status.health_checks:
        state = check.reason or f"{sum(check.counts.values())} local endpoint"
        port = f"127.0.0.1:{check.port}"
        command = f"curl -i http://{port}/healthz"
        found.append(Row(str(check.service), "health check", f"{port}/TCP", state, command))
    found.sort()
    return found + [Row(str(each.service), "", "", each.reason, "") for each in status.services]


def table(found: list[Row]) -> Iterator[str]:
    """Lines of text, in columns."""
    head = Row("SERVICE", "WHAT", "FRONTEND", "STATE", "TRY")
    widths = [max(len(row[column]) for row in (head, *found) if row.what) for column in range(4)]
    for row in (head, *found):
        if row.what:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            yield "  ".join([*cells, row.command])
    for row in found:
        if not row.what:
            yield f"{row.service.ljust(widths[0])}  not served: {row.state}"


def notes(status: Status) -> Iterator[str]:
    """What a reader may wonder about."""
    local = ObjectName("default", "svc-local")
    if any(check.service == local for check in status.health_checks):
        yield (
            f"{local} has externalTrafficPolicy Local with one pod here and one elsewhere. A client"
            " on this\nmachine counts as the node itself and may reach both; one from outside"
            " would reach only svc-local-here."
        )


def _frontend(each: FrontendStatus) -> Row:
    protocol, address, port = each.frontend
    template = _HTTP
    if each.owner.port.startswith("dns"):
        template = _DNS if protocol == "UDP" else _DNS_TCP
    count = len(each.backends)
    state = f"{count} pods" if each.state == "serving" else f"{each.state}: {each.reason}"
    if each.affinity_timeout:
        state += ", ClientIP affinity"
    service = f"{each.owner.namespace}/{each.owner.name}"
    command = template.format(address=address, port=port)
    return Row(service, each.kind.value, str(each.frontend), state, command)
