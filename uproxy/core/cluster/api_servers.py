"""Where the API servers are: they keep the endpoints of the Service `kubernetes` up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from uproxy.core.cluster.objects import EndpointPort, EndpointSlice, Object, ObjectName
from uproxy.core.ip import is_host_address, parse_ip
from uproxy.core.route import Backend

SERVICE: Final = ObjectName("default", "kubernetes")
"""The Service whose endpoints are the API servers."""
_PORT_NAME: Final = "https"


def api_server_addresses(objects: Iterable[Object]) -> tuple[str, ...]:
    """The API servers as "HOST:PORT", sorted; an IPv6 address has brackets, as in a URL.

    `objects` may contain anything; only EndpointSlices of the Service `kubernetes` count. An
    endpoint that is not ready is left out: an API server that stops says so before it closes its
    port.
    """
    found = (
        str(Backend(address, port))
        for each in objects
        if isinstance(each, EndpointSlice) and each.service == SERVICE
        for port in _ports(each.ports or ())
        for address in _ready_addresses(each)
    )
    return tuple(sorted(set(found)))


def _ports(ports: Iterable[EndpointPort]) -> Iterator[int]:
    """The port of the API itself. An administrator may have added others to the Service."""
    numbers = {each.name or "": each.port for each in ports if each.port}
    port = numbers.get(_PORT_NAME) or (next(iter(numbers.values())) if len(numbers) == 1 else 0)
    if port:
        yield port


def _ready_addresses(endpoint_slice: EndpointSlice) -> Iterator[str]:
    for each in endpoint_slice.endpoints or ():
        if each.conditions.ready is not False:
            for text in each.addresses or ():
                address = parse_ip(text)
                if address is not None and is_host_address(address):
                    yield address
