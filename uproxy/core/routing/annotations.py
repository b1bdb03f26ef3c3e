"""Annotations by which a Service sets options of its own. A wrong value becomes a reason."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, TypeVar

from uproxy.core.brief import LONGEST_NAME, brief_name
from uproxy.core.cluster.objects import Service
from uproxy.core.protocols import TRANSPORTS
from uproxy.core.route import ProxyProtocol

BALANCER: Final = "uproxy.dev/balancer"
"""How backends are chosen; its value is a BalancerKind."""
PROXY_PROTOCOL: Final = "uproxy.dev/proxy-protocol"
"""Version of the PROXY header for the TCP ports of the Service; its value is a ProxyProtocol."""
PRESERVE_CLIENT_IP: Final = "uproxy.dev/preserve-client-ip"
"""Which clients' addresses backends see; its value is a ClientIPMode."""

C = TypeVar("C", bound=StrEnum)


def choice(service: Service, name: str, kind: type[C], reasons: list[str]) -> C | None:
    """The value of an annotation. None if it is missing, or if it is wrong: then a reason is added
    to `reasons`."""
    wanted = (service.metadata.annotations or {}).get(name)
    if wanted is None:
        return None
    try:
        return kind(wanted)
    except ValueError:
        known = ", ".join(each.value for each in kind)
        # It may have 256 KiB. A short one is quoted as it is: the spaces in it may be the mistake.
        shown = wanted if len(wanted) <= LONGEST_NAME else brief_name(wanted)
        reasons.append(f'annotation {name} is "{shown}", so it is ignored; use one of: {known}')
        return None


def no_header_reasons(service: Service, version: ProxyProtocol | None) -> Iterator[str]:
    """A reason for each port of a Service that asks for a PROXY header and cannot have one (see
    `may_have_proxy_header`)."""
    if version is not None:
        for port in service.ports:
            transport = TRANSPORTS.get(port.protocol)
            if transport is not None and not transport.may_have_proxy_header:
                label = f'port "{port.name or port.port}"'
                yield f"{label}: annotation {PROXY_PROTOCOL} has no effect on {port.protocol}"
