"""What is said on a segment about who has an address: ARP, and neighbour advertisements."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.netns.kit import Namespace, Place

_ALL, _ARP, _IPV6 = 0x0003, 0x0806, 0x86DD
_OUTGOING = 4  # PACKET_OUTGOING
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_ARP_BODY: Final = struct.Struct("!HHBBH6s4s6s4s")
_BROADCAST = b"\xff" * 6
_PERIOD = 0.05
"""Seconds between two questions of `Questions`."""


class Said(NamedTuple):
    """One frame in which a machine says that it has an address."""

    at: float
    """Of the monotonic clock."""
    node: str
    """The bridge port by which it came."""
    form: str
    """"ARP request", "ARP reply", or "NA"."""
    address: str
    mac: str
    to_all: bool
    """Sent to the broadcast address, or to the multicast group of all nodes: unasked."""
    override: bool
    source: str
    """IP address of the sender ("" for ARP)."""


class Capture:
    """Notes who says on a bridge that it has an address. `said` grows while it runs."""

    def __init__(self, bridge: Namespace, ports: Mapping[str, str]) -> None:
        """`ports`: names of nodes, by the ports of the bridge that lead to them."""
        self.said: list[Said] = []
        self._ports = ports
        with bridge.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture")
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def of(self, address: str, *, since: float = 0.0, node: str = "") -> list[Said]:
        """What was said of an address (by one node)."""
        return [
            each
            for each in tuple(self.said)
            if each.address == address and each.at >= since and node in ("", each.node)
        ]

    def unasked(self, address: str, *, since: float = 0.0, node: str = "") -> list[Said]:
        """The same, as far as it was said to all."""
        return [each for each in self.of(address, since=since, node=node) if each.to_all]

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                frame, extra, _, sender = self._socket.recvmsg(2048, 64)
                if sender[2] != _OUTGOING and sender[0] in self._ports:
                    self._note(self._ports[sender[0]], frame, _stamp(extra))

    def _note(self, node: str, frame: bytes, at: float) -> None:
        said = _parsed(frame)
        if said is not None:
            self.said.append(said._replace(node=node, at=at))


def _stamp(extra: list[tuple[int, int, bytes]]) -> float:
    """When the kernel got the frame: this thread may run later."""
    for _, kind, data in extra:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return float(seconds + nanoseconds / 1e9 - time.time() + time.monotonic())
    return time.monotonic()


def _parsed(frame: bytes) -> Said | None:
    kind = int.from_bytes(frame[12:14])
    if kind == _ARP and len(frame) >= 14 + _ARP_BODY.size:
        return _arp(frame)
    # Next header ICMPv6, type neighbour advertisement.
    if kind == _IPV6 and len(frame) >= 78 and frame[20] == 58 and frame[54] == 136:
        return _advertisement(frame)
    return None


def _arp(frame: bytes) -> Said | None:
    _, _, _, _, operation, mac, sender, _, target = _ARP_BODY.unpack_from(frame, 14)
    if operation == 1 and sender != target:
        return None  # A question.
    form = "ARP request" if operation == 1 else "ARP reply"
    address = socket.inet_ntop(socket.AF_INET, sender)
    return Said(0.0, "", form, address, mac.hex(":"), frame[:6] == _BROADCAST, True, "")


def _advertisement(frame: bytes) -> Said:
    address = socket.inet_ntop(socket.AF_INET6, frame[62:78])
    source = socket.inet_ntop(socket.AF_INET6, frame[22:38])
    to_all = frame[38:54] == socket.inet_pton(socket.AF_INET6, "ff02::1")
    mac = frame[80:86] if frame[78:80] == b"\x02\x01" else frame[6:12]
    return Said(0.0, "", "NA", address, mac.hex(":"), to_all, bool(frame[58] & 0x20), source)


class Answer(NamedTuple):
    """An answer to the question who has an address."""

    at: float
    mac: str


class Questions:
    """Asks all machines of the segment who has an address, every 0.05 s, and notes the answers.

    The kernel's neighbour table plays no part in it, so that two machines that both answer are
    both seen.
    """

    def __init__(self, client: Place, address: str) -> None:
        self.address = address
        self.answers: list[Answer] = []
        self._ended = threading.Event()
        with client.space.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
            self._socket.bind(("eth0", _ALL))
            self._question = _question(self._socket.getsockname()[4], client, address)
        self._socket.settimeout(_PERIOD)
        self._thread = threading.Thread(target=self._run, name=f"who has {address}")
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def answering(self, since: float = 0.0) -> set[str]:
        """MAC addresses that have answered."""
        return {each.mac for each in tuple(self.answers) if each.at >= since}

    def _run(self) -> None:
        asked = 0.0
        while not self._ended.is_set():
            if time.monotonic() - asked >= _PERIOD:
                asked = time.monotonic()
                with contextlib.suppress(OSError):  # The link is down.
                    self._socket.send(self._question)
            with contextlib.suppress(OSError):
                frame, _, _, sender = self._socket.recvmsg(2048)
                said = _parsed(frame)
                if sender[2] != _OUTGOING and said is not None and said.address == self.address:
                    self.answers.append(Answer(time.monotonic(), said.mac))


def _question(mac: bytes, client: Place, address: str) -> bytes:
    """An ARP request or a neighbour solicitation."""
    if ":" not in address:
        sender, target = (socket.inet_aton(each) for each in (client.ipv4, address))
        body: bytes = _ARP_BODY.pack(1, 0x0800, 6, 4, 1, mac, sender, bytes(6), target)
        return _BROADCAST + mac + _ARP.to_bytes(2) + body
    source, target = (socket.inet_pton(socket.AF_INET6, each) for each in (client.ipv6, address))
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\x01\x01" + mac
    total = sum(struct.unpack("!16H", source + group)) + len(body) + 58
    total += sum(struct.unpack(f"!{len(body) // 2}H", body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + (total ^ 0xFFFF).to_bytes(2) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group
    return b"\x33\x33" + group[12:] + mac + _IPV6.to_bytes(2) + header + body


class Datagrams:
    """Sends datagrams to an address, each from a port of its own, and notes which node's answer
    came when. A node is known by the address with which the pod sees it."""

    def __init__(
        self, client: Namespace, address: str, port: int, nodes: Mapping[str, str]
    ) -> None:
        """`nodes`: names of nodes, by their addresses towards pods."""
        self.answered: list[tuple[float, str]] = []
        self._ended = threading.Event()
        self._target = (address, port)
        self._client = client
        self._nodes = nodes
        self._thread = threading.Thread(target=self._run, name=f"datagrams to {address}")
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def first(self, *, since: float, other_than: str = "") -> tuple[float, str] | None:
        """When the first answer since then came, and from which node."""
        for at, node in tuple(self.answered):
            if at >= since and node != other_than:
                return at, node
        return None

    def _run(self) -> None:
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        while not self._ended.is_set():
            with self._client.socket(family, socket.SOCK_DGRAM) as sock:
                # Answers come within a few milliseconds, if at all.
                sock.settimeout(_PERIOD)
                try:
                    sock.connect(self._target)
                    sock.send(b"hello")
                    words = sock.recv(2048).decode().split()
                except OSError:
                    self._ended.wait(0.01)  # A refusal comes at once.
                else:
                    seen = words[1] if len(words) > 1 else ""
                    self.answered.append((time.monotonic(), self._nodes.get(seen, seen)))
                    self._ended.wait(_PERIOD)
