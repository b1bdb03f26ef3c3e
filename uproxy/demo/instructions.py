"""What the demo prints: the frontends, and a command to try for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.protocols import TCP, UDP
from uproxy.core.report.status import FrontendStatus, HealthCheckStatus, Status
from uproxy.core.route import Frontend


class Row(NamedTuple):
    service: str
    kind: str
    frontend: str
    state: str


class Suggestion(NamedTuple):
    """A command to try, and what it will show."""

    command: str
    expectation: str


_HEAD = Row("SERVICE", "KIND", "FRONTEND", "STATE")
_DIG_OPTION = {TCP: "+tcp", UDP: "+notcp"}
_LOCAL = ObjectName("default", "svc-local")
_POOL = ObjectName("default", "svc-pool")


def rows(status: Status) -> list[Row]:
    """One row for each frontend but the ClusterIPs, and for each health check."""
    found = [_frontend(each) for each in _shown(status)]
    found += [_health_check(each) for each in status.health_checks]
    return sorted(found)


def table(found: list[Row]) -> Iterator[str]:
    """Lines of text, in columns."""
    lines = [_HEAD, *found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def not_served(status: Status) -> Iterator[str]:
    """The Services that are not served on purpose, and why."""
    for each in sorted(status.services, key=lambda each: each.service):
        yield f"{each.service} is not served: {each.reason}"


def suggestions(status: Status) -> list[Suggestion]:
    """A command for each row, in the same order."""
    found = [(_frontend(each), _suggestion(each)) for each in _shown(status)]
    found += [
        (
            _health_check(each),
            Suggestion(
                f"curl -i http://127.0.0.1:{each.port}/healthz",
                "200 while one of its pods is on this node",
            ),
        )
        for each in status.health_checks
    ]
    return [suggestion for _, suggestion in sorted(found)]


def command_lines(found: list[Suggestion]) -> Iterator[str]:
    """A line for each command, with what to expect of it as a comment."""
    width = max((len(each.command) for each in found), default=0)
    for each in found:
        yield f"  {each.command.ljust(width)}  # {each.expectation}"


def notes(status: Status) -> Iterator[str]:
    """An explanation of what may surprise a reader."""
    if any(check.service == _LOCAL for check in status.health_checks):
        yield (
            f"{_LOCAL} has externalTrafficPolicy Local, with one pod on this node and"
            " one on another.\nA client on this machine counts as the node itself and may reach"
            " both; a client from\noutside would reach only svc-local-here."
        )

    balancer = status.load_balancer
    for each in balancer.services if balancer is not None else ():
        if each.service == _POOL and each.addresses:
            yield (
                f"{_POOL} has no address in its manifest. uproxy has assigned it"
                f" {each.addresses[0]}, from the pool {each.pool}."
            )


def _shown(status: Status) -> Iterable[FrontendStatus]:
    return (each for each in status.frontends if each.kind != "ClusterIP")


def _frontend(each: FrontendStatus) -> Row:
    state = f"{each.state}: {each.reason}"
    if each.state == "serving":
        state = _pods(each)
    service = f"{each.owner.namespace}/{each.owner.name}"
    return Row(service, each.kind.value, str(each.frontend), state)


def _health_check(each: HealthCheckStatus) -> Row:
    state = each.reason or f"{sum(each.counts.values())} local pod"
    frontend = str(Frontend(TCP, "127.0.0.1", each.port))
    return Row(str(each.service), "health check", frontend, state)


def _suggestion(each: FrontendStatus) -> Suggestion:
    protocol, address, port = each.frontend
    url = f"http://{address}:{port}"
    if each.owner.port.startswith("dns"):
        command = f"dig +short {_DIG_OPTION[protocol]} @{address} -p {port} TXT pod"
        return Suggestion(command, f"DNS over {protocol}")
    if each.affinity_timeout:
        return Suggestion(f"curl {url}", "always the same pod")
    if each.owner[:2] == _LOCAL:
        return Suggestion(f"curl {url}", "see below")
    return Suggestion(f"curl {url}", f"{_pods(each)} in turn")


def _pods(each: FrontendStatus) -> str:
    count = len(each.backends)
    return "1 pod" if count == 1 else f"{count} pods"
