"""The PROXY header that a backend is to get in front of its client's bytes."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from tests.simulation.peers import Peer
from uproxy.core.route import ProxyProtocol

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""Version 2 begins with it."""


def header_of(simulation: Simulation, peer: Peer) -> bytes:
    """What a backend is told about its client first."""
    pair = peer.pair
    if peer in simulation.clients or pair is None:
        return b""
    version = version_of(simulation, peer)
    if version is None:
        return b""
    (client, port), (server, number) = pair.stream.local, pair.stream.remote
    if version is ProxyProtocol.V1:
        return f"PROXY TCP4 {client} {server} {port} {number}\r\n".encode()
    addresses = socket.inet_aton(client) + socket.inet_aton(server)
    ports = struct.pack("!HH", port, number)
    return SIGNATURE + b"\x21\x11\0\x0c" + addresses + ports


def version_of(simulation: Simulation, peer: Peer) -> ProxyProtocol | None:
    if peer in simulation.clients:
        return None
    service = int(peer.stream.local[0].split(".")[2])
    return simulation.scenario.services[service].proxy_protocol


def length_of_header(simulation: Simulation, peer: Peer) -> int:
    """Or more than any, where the attempt has failed."""
    if peer.pair is None and version_of(simulation, peer) is not None:
        return 1000
    return len(header_of(simulation, peer))


def is_part_of_header(simulation: Simulation, peer: Peer) -> bool:
    if version_of(simulation, peer) is None or peer.pair is not None:
        return False
    start, count = bytes(peer.received), len(peer.received)
    return start[:6] == b"PROXY "[:count] or start[:12] == SIGNATURE[:count]
