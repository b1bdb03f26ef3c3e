"""The manifests of the demo: writing them with a port offset, and finding ports that are taken."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.load_balancer import is_ours
from uproxy.core.cluster.objects import Object, Service
from uproxy.core.protocols import TCP, TRANSPORTS
from uproxy.core.route import Frontend

_PORT = re.compile(r"\b(port|nodePort|healthCheckNodePort): (\d+)")
NODEPORT_ADDRESS = "127.0.0.1"
POOL = Pool(name="demo", ranges=(AddressRange.parse("127.0.0.64/28"),))
"""For Services of type LoadBalancer without an address. Every address of 127.0.0.0/8 is this
machine's own, so that this takes no privilege."""


def write(directory: Path, port_offset: int) -> Path:
    """Write the manifests into a directory, with an offset added to all ports; returns the file."""
    text = resources.files(__package__).joinpath("cluster.yaml").read_text()
    moved = _PORT.sub(lambda found: f"{found[1]}: {int(found[2]) + port_offset}", text)
    path = directory / "cluster.yaml"
    path.write_text(moved)
    return path


def frontends(objects: Sequence[Object]) -> Iterator[tuple[Frontend, str]]:
    """Every frontend that the demo needs, and what it is for.

    Which address of the pool a Service gets is decided later. They are used from the first one on,
    so as many are checked as there are Services without one.
    """
    waiting = [each for each in objects if isinstance(each, Service) and _waits(each)]
    first = POOL.ranges[0]
    pool = [first.address(first.first + index) for index in range(len(waiting))]
    for service in objects:
        if not isinstance(service, Service):
            continue
        spec = service.spec
        addresses = [spec.cluster_ip, *(spec.external_ips or ())]
        addresses += pool if _waits(service) else [each.ip for each in service.ingress]
        for port in service.ports:
            for address in addresses:
                if address not in ("", "None"):
                    yield Frontend(port.protocol, address, port.port), str(service.key)
            if port.node_port:
                frontend = Frontend(port.protocol, NODEPORT_ADDRESS, port.node_port)
                yield frontend, str(service.key)
        if spec.health_check_node_port:
            frontend = Frontend(TCP, NODEPORT_ADDRESS, spec.health_check_node_port)
            yield frontend, f"the health check of {service.key}"


def _waits(service: Service) -> bool:
    """Whether a Service is to get an address of the pool."""
    return is_ours(service) and not service.ingress


def first_taken(wanted: Sequence[tuple[Frontend, str]]) -> str | None:
    """Says which is the first frontend that cannot be bound; None if all are free."""
    for (protocol, address, port), purpose in wanted:
        stream = TRANSPORTS[protocol].is_stream
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as sock:
            if stream:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, port))
            except OSError as error:
                taken = "is taken" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
                return f"{protocol} port {port} on {address}, for {purpose}, {taken}"
    return None
