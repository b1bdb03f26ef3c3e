"""Reads PROXY headers as a strict receiver does."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from uproxy.core.route import ProxyProtocol
from uproxy.dataplane.tcp.proxy_protocol import End

V1, V2 = ProxyProtocol.V1, ProxyProtocol.V2


class Decoded(NamedTuple):
    """What a receiver learns; None for connections of the proxy's own."""

    client: End | None
    server: End | None
    rest: bytes


def decode(version: ProxyProtocol, data: bytes) -> Decoded:
    """As a strict receiver does it."""
    return _decode_text(data) if version is V1 else _decode_binary(data)


def _decode_text(data: bytes) -> Decoded:
    line, end, rest = data.partition(b"\r\n")
    assert end
    assert len(line) + 2 <= 107
    words = line.decode("ascii").split(" ")
    if words == ["PROXY", "UNKNOWN"]:
        return Decoded(None, None, rest)
    proxy, family, client, server, client_port, server_port = words
    kind = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[family]
    assert proxy == "PROXY"
    for address in (client, server):
        assert socket.inet_ntop(kind, socket.inet_pton(kind, address)) == address
    for port in (client_port, server_port):
        assert str(int(port)) == port
    return Decoded((client, int(client_port)), (server, int(server_port)), rest)


def _decode_binary(data: bytes) -> Decoded:
    assert data[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")
    command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    body, rest = data[16 : 16 + length], data[16 + length :]
    assert len(body) == length
    if command == 0x20:
        return Decoded(None, None, rest)
    assert command == 0x21
    kind, width = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}[family]
    assert length == 2 * width + 4
    client, server = body[:width], body[width : 2 * width]
    client_port, server_port = struct.unpack("!HH", body[2 * width :])
    return Decoded(
        (socket.inet_ntop(kind, client), client_port),
        (socket.inet_ntop(kind, server), server_port),
        rest,
    )
