"""What the demo prints: the frontends, and a command to try for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.protocols import TCP, UDP
from uproxy.core.report.status import FrontendStatus, HealthCheckStatus, Status
from uproxy.core.route import Frontend, FrontendKind
from uproxy.demo.backends import Missing, Pod


class Row(NamedTuple):
    service: str
    kind: str
    frontend: str
    state: str


class Suggestion(NamedTuple):
    """A command to try, and what it will show."""

    command: str
    expectation: str


_MOST_ROWS = 40
_MOST_SUGGESTIONS = 20
HEAD = Row("SERVICE", "KIND", "FRONTEND", "STATE")
_DIG_OPTION = {TCP: "+tcp", UDP: "+notcp"}
_CLUSTER_IP = FrontendKind.CLUSTER_IP
_LOCAL = ObjectName("default", "svc-local")
_POOL = ObjectName("default", "svc-pool")


def rows(status: Status) -> list[Row]:
    """One row for each frontend, and for each health check. ClusterIPs are left out where the
    Service port can be reached in another way."""
    found = [_frontend(each) for each in _shown(status)]
    found += [_health_check(each) for each in status.health_checks]
    return sorted(found)


def first_rows(status: Status) -> tuple[list[Row], int]:
    """The first rows, and how many more there are."""
    found = rows(status)
    return found[:_MOST_ROWS], max(0, len(found) - _MOST_ROWS)


def service_to_explain(status: Status) -> str:
    """One that shows most; "" if there is none."""
    served = sorted(row.service for row in map(_frontend, filter(_answers, _shown(status))))
    return str(_LOCAL) if str(_LOCAL) in served else next(iter(served), "")


def not_served(status: Status) -> Iterator[str]:
    """The Services that are not served on purpose, or only in part, and why."""
    served = {(each.owner.namespace, each.owner.name) for each in status.frontends}
    for each in sorted(status.services, key=lambda each: each.service):
        part = "is served in part" if tuple(each.service) in served else "is not served"
        yield f"{each.service} {part}: {each.reason}"


def suggestions(status: Status) -> list[Suggestion]:
    """A command for each row that is served, in the same order; the first few."""
    found = [(_frontend(each), _suggestion(each)) for each in _shown(status) if _answers(each)]
    found += [
        (
            _health_check(each),
            Suggestion(
                f"curl -i http://127.0.0.1:{each.port}/healthz",
                "200 if a pod is here",
            ),
        )
        for each in status.health_checks
    ]
    return [suggestion for _, suggestion in sorted(found)][:_MOST_SUGGESTIONS]


def without_backends(missing: Mapping[Pod, Missing]) -> Iterator[str]:
    """Why some endpoints do not answer, or answer on their own: a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for pod, why in missing.items():
        by_reason.setdefault(why.reason, []).append(str(pod.socket))
    for reason, sockets in by_reason.items():
        more = f" and {len(sockets) - 2:,} more" if len(sockets) > 2 else ""
        yield f"No backend for {', '.join(sockets[:2])}{more}: {reason}."


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
            " one on another. A client on this machine counts as the node itself and may reach"
            " both; a client from outside would reach only svc-local-here."
        )

    balancer = status.load_balancer
    for each in balancer.services if balancer is not None else ():
        if each.service == _POOL and each.addresses:
            yield (
                f"{_POOL} has no address in its manifest. uproxy has assigned it"
                f" {each.addresses[0]}, from the pool {each.pool}."
            )


def _shown(status: Status) -> Iterable[FrontendStatus]:
    reachable = {each.owner for each in status.frontends if each.kind != _CLUSTER_IP}
    return (
        each for each in status.frontends if each.kind != _CLUSTER_IP or each.owner not in reachable
    )


def _answers(each: FrontendStatus) -> bool:
    return each.state == "serving"


def _frontend(each: FrontendStatus) -> Row:
    state = _pods(each) if _answers(each) else f"{each.state}: {each.reason}"
    service = f"{each.owner.namespace}/{each.owner.name}"
    return Row(service, each.kind.value, str(each.frontend), state)


def _health_check(each: HealthCheckStatus) -> Row:
    count = sum(each.counts.values())
    state = each.reason or ("1 local pod" if count == 1 else f"{count} local pods")
    frontend = str(Frontend(TCP, "127.0.0.1", each.port))
    return Row(str(each.service), "health check", frontend, state)


def _suggestion(each: FrontendStatus) -> Suggestion:
    protocol, address, port = each.frontend
    if each.owner.port.startswith("dns"):
        command = f"dig +short {_DIG_OPTION[protocol]} @{address} -p {port} TXT pod"
        return Suggestion(command, f"DNS over {protocol}")
    if protocol == UDP:
        return Suggestion(f"echo hello | nc -u -w 1 {address} {port}", _choice(each))
    # A shell may take brackets for a pattern.
    url = f"'http://[{address}]:{port}'" if ":" in address else f"http://{address}:{port}"
    if each.affinity_timeout:
        return Suggestion(f"curl {url}", "always the same pod")
    if each.owner[:2] == _LOCAL:
        return Suggestion(f"curl {url}", "see below")
    return Suggestion(f"curl {url}", _choice(each))


def _choice(each: FrontendStatus) -> str:
    """Each worker takes the pods in turn, so with several workers the order is not seen."""
    return f"any of {_pods(each)}" if len(each.backends) > 1 else _pods(each)


def _pods(each: FrontendStatus) -> str:
    count = len(each.backends)
    return "1 pod" if count == 1 else f"{count} pods"
