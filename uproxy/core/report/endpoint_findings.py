"""Why a Service of manifests has no endpoints, and which endpoints belong to no Service."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from uproxy.core import protocols
from uproxy.core.brief import brief_name
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Object, ObjectName, Service
from uproxy.core.report.findings import Finding, Locate, Severity, finding
from uproxy.core.route import ServicePortName
from uproxy.core.routing.port_backends import NO_ENDPOINTS
from uproxy.core.suggestions import did_you_mean

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""The label of EndpointSlices that names their Service."""
_NAMED: Final = 3
"""How many ports a reason names."""
_LABEL: Final = f"metadata.labels[{SERVICE_NAME}]"


def no_endpoints_reason(
    service: Service, port: ServicePortName, slices: Sequence[EndpointSlice]
) -> str:
    """Why a port has no endpoints at all, and what to correct."""
    if not slices:
        missing = f"no EndpointSlice has the label {SERVICE_NAME}: {service.metadata.name}"
        pods = "; without a cluster, its selector finds no pods" if service.spec.selector else ""
        return f"{NO_ENDPOINTS}: {missing}, and there are no Endpoints of its name{pods}"
    kind = "EndpointSlices" if any(each.service for each in slices) else "Endpoints"
    ports = dict.fromkeys(
        (each.name, each.protocol or protocols.DEFAULT)
        for slice_ in slices
        for each in slice_.ports or ()
    )
    if (port.port, port.protocol) not in ports:
        return f"{NO_ENDPOINTS}: {_no_port(port, kind, ports)}"
    families = sorted({each.address_type for each in slices if each.endpoints})
    if not families:
        return f"{NO_ENDPOINTS}: there are none in its {kind}"
    return f"{NO_ENDPOINTS} of this family: those of its {kind} are {' and '.join(families)}"


def _no_port(port: ServicePortName, kind: str, ports: Collection[tuple[str | None, str]]) -> str:
    found = [
        _port(name, protocol) if name is not None else "one without a name"
        for name, protocol in islice(ports, _NAMED)
    ]
    there = f"they have {', '.join(found)}" if found else "they have none"
    fix = ""
    if any(name is None for name, _ in ports):
        fix = f'; give that the name "{brief_name(port.port)}", without one it is not for Services'
    return f"its {kind} have no port {_port(port.port, port.protocol)}; {there}{fix}"


def _port(name: str, protocol: str) -> str:
    return f'"{brief_name(name)}"/{protocol}'


def orphan(
    obj: Object, services: Mapping[str, Collection[str]], locate: Locate
) -> Iterable[Finding]:
    """A warning, if an EndpointSlice or Endpoints belong to no Service. `services` are the names
    of all Services by namespace."""
    if isinstance(obj, Endpoints):
        owner, field = obj.key, "metadata.name"
    elif isinstance(obj, EndpointSlice):
        owner, field = obj.service or ObjectName("", ""), _LABEL
    else:
        return
    there = services.get(obj.metadata.namespace, ())
    if owner.name in there:
        return
    if owner.name:
        reason = f"there is no Service {brief_name(str(owner))}{did_you_mean(owner.name, there)}"
    else:
        reason = "it is missing, so these endpoints belong to no Service"
    kind = type(obj)
    file, line = locate(kind, obj.key, field)
    name = f"{kind.__name__} {obj.key}"
    yield finding(Severity.WARNING, reason, file=file, line=line, obj=name, field=field)
