"""The PROXY protocol's header, versions 1 and 2, as a sender writes it.

Source: "The PROXY protocol", sections 2.1 and 2.2 (doc/proxy-protocol.txt in HAProxy's sources).
It goes first on a backend connection and names both ends of the connection that the proxy has
accepted. The backend's own address plays no part in it, so that may be of the other family.
"""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from uproxy.core.route import ProxyProtocol

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
"""Version 2 in the high half, the command in the low one."""
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
"""Address family in the high half, SOCK_STREAM in the low one."""
_HEAD: Final = struct.Struct("!12sBBH")
_PORTS: Final = struct.Struct("!HH")

_NO_CLIENT: Final = {
    ProxyProtocol.V1: b"PROXY UNKNOWN\r\n",
    ProxyProtocol.V2: _HEAD.pack(SIGNATURE, _LOCAL, _UNSPEC, 0),
}

End = tuple[str, int]
"""IP address in canonical form, and port."""


def header(version: ProxyProtocol, client: End, server: End) -> bytes:
    """The header of a relayed connection: its client, and the address that the client connected to,
    which must be of one family."""
    if version is ProxyProtocol.V1:
        family = "TCP6" if ":" in client[0] else "TCP4"
        return f"PROXY {family} {client[0]} {server[0]} {client[1]} {server[1]}\r\n".encode()
    number, kind = (AF_INET6, _TCP6) if ":" in client[0] else (AF_INET, _TCP4)
    addresses = inet_pton(number, client[0]) + inet_pton(number, server[0])
    ports = _PORTS.pack(client[1], server[1])
    return _HEAD.pack(SIGNATURE, _PROXY, kind, len(addresses) + 4) + addresses + ports


def header_without_client(version: ProxyProtocol) -> bytes:
    """For a connection that a proxy makes on its own behalf, such as a health probe: UNKNOWN, or
    the command LOCAL. The receiver goes by the connection's own addresses.

    Never sent for a client: a backend that trusts the proxy's address would trust the client.
    """
    return _NO_CLIENT[version]
