"""Annotations by which a Service sets options of its own. A wrong one becomes a problem."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

from uproxy.core.brief import LONGEST_NAME, brief_name
from uproxy.core.cluster.load_balancer import ADDRESS_POOL, ADDRESSES, ASSIGNED, SHARING
from uproxy.core.cluster.objects import Service
from uproxy.core.cluster.own_annotations import PREFIX, unknown_annotations
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.route import BalancerKind, ClientIPMode, ProxyProtocol

BALANCER: Final = f"{PREFIX}balancer"
"""How backends are chosen; its value is a BalancerKind."""
PROXY_PROTOCOL: Final = f"{PREFIX}proxy-protocol"
"""Version of the PROXY header for the TCP ports of the Service; its value is a ProxyProtocol."""
PRESERVE_CLIENT_IP: Final = f"{PREFIX}preserve-client-ip"
"""Which clients' addresses backends see; its value is a ClientIPMode."""

_KNOWN: Final = (
    *(name.removeprefix(PREFIX) for name in (BALANCER, PROXY_PROTOCOL, PRESERVE_CLIENT_IP)),
    *(ADDRESSES, ADDRESS_POOL, SHARING),
)
"""The names, without the prefix, that people write on Services."""
_WRITTEN: Final = (ASSIGNED.removeprefix(PREFIX),)
"""Those that uproxy writes."""

C = TypeVar("C", bound=StrEnum)


class Problem(NamedTuple):
    """An annotation that does not have the effect that its author wanted."""

    annotation: str
    reason: str
    """A clause that names the annotation."""


class Annotated(NamedTuple):
    """What the annotations of a Service say."""

    balancer: BalancerKind | None = None
    proxy_protocol: ProxyProtocol | None = None
    client_ip: ClientIPMode = ClientIPMode.AUTO
    no_header: str = ""
    """Why the ports that may have a PROXY header refuse their clients; "": they do not.

    A backend that expects a header, and gets none, believes the one that a client sends, which
    may name any address. So a Service that asks for a header in words that uproxy does not
    understand is not served without one."""
    problems: tuple[Problem, ...] = ()


def annotated(service: Service) -> Annotated:
    """Read the annotations of a Service."""
    annotations = service.metadata.annotations
    if not annotations:
        return Annotated()
    problems: list[Problem] = []
    balancer = _choice(annotations, BALANCER, BalancerKind, "it is ignored", problems)
    header = _choice(
        annotations, PROXY_PROTOCOL, ProxyProtocol, "clients of TCP ports are refused", problems
    )
    refuses = PROXY_PROTOCOL in annotations and header is None
    problems += _without_effect(service, header)
    client_ip = _choice(
        annotations, PRESERVE_CLIENT_IP, ClientIPMode, 'it counts as "never"', problems
    )
    if client_ip is None:
        # The author wanted some clients not to be shown: the annotation can do nothing else.
        given = PRESERVE_CLIENT_IP in annotations
        client_ip = ClientIPMode.NEVER if given else ClientIPMode.AUTO
    problems += [
        Problem(name, f"annotation {brief_name(name)} {reason}")
        for name, reason in unknown_annotations(annotations, _KNOWN, _WRITTEN)
    ]
    no_header = f"annotation {PROXY_PROTOCOL} has a wrong value" if refuses else ""
    return Annotated(balancer, header, client_ip, no_header, tuple(problems))


def _choice(
    annotations: dict[str, str], name: str, kind: type[C], so: str, problems: list[Problem]
) -> C | None:
    """The value of an annotation. None if it is missing, or if it is wrong: then a problem is
    added, which says what follows (`so`)."""
    wanted = annotations.get(name)
    if wanted is None:
        return None
    try:
        return kind(wanted)
    except ValueError:
        known = ", ".join(each.value for each in kind)
        # It may have 256 KiB. A short one is quoted as it is: the spaces in it may be the mistake.
        shown = wanted if len(wanted) <= LONGEST_NAME else brief_name(wanted)
        reason = f'annotation {name} is "{shown}", so {so}; use one of: {known}'
        problems.append(Problem(name, reason))
        return None


def _without_effect(service: Service, version: ProxyProtocol | None) -> Iterator[Problem]:
    """A problem for each port of a Service that asks for a PROXY header and cannot have one (see
    `may_have_proxy_header`)."""
    if version is not None:
        for port in service.ports:
            transport = TRANSPORTS.get(port.protocol)
            if transport is not None and not transport.may_have_proxy_header:
                label = f'port "{port.name or port.port}"'
                reason = f"{label}: annotation {PROXY_PROTOCOL} has no effect on {port.protocol}"
                yield Problem(PROXY_PROTOCOL, reason)
