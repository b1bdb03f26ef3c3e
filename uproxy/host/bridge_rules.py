"""Rules that bring replies between two pods of one bridge up to this node's IP stack.

A backend's reply to a pod of the same bridge is a frame to that pod, which the bridge delivers
without asking the IP stack, where the transparent socket waits. A chain of family bridge gives such
a frame the bridge's own address: the bridge then takes it for one to this node. It concerns replies
of backends in use to the ports of transparent sockets, and nothing else, as the maps say.

The maps give the address of the bridge, so one chain serves all bridges, and needs neither their
names nor `meta ibrname`, which many kernels lack (decision 0015).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from uproxy.core.ip import is_host_address, parse_ip
from uproxy.core.route import Backend
from uproxy.host.commands import explain, is_installed, run_command
from uproxy.net.client_ports import CLIENT_PORTS, PROBE_PORT

TABLE: Final = "uproxy"

_PORTS: Final = f"{CLIENT_PORTS.start}-{CLIENT_PORTS.stop - 1}"
_UP: Final = "meta pkttype set host accept"
_RULES: Final = tuple(
    f"{match} ether daddr set {key} map @{name} {_UP}"
    for match, key, name in (
        (f"tcp dport {_PORTS}", "ip saddr . tcp sport", "backends4"),
        (f"udp dport {_PORTS}", "ip saddr . udp sport", "backends4"),
        (f"tcp dport {_PORTS}", "ip6 saddr . tcp sport", "backends6"),
        (f"udp dport {_PORTS}", "ip6 saddr . udp sport", "backends6"),
        # ICMP errors about packets of ours. The port is in the quoted packet, behind 8 bytes of
        # ICMP and the quoted IP header, which has no options: 28 and 48 bytes.
        (
            "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
            f" @th,224,16 {_PORTS}",
            *("ip saddr", "hosts4"),
        ),
        (
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded,"
            f" parameter-problem }} @th,384,16 {_PORTS}",
            *("ip6 saddr", "hosts6"),
        ),
        # Only the first fragment has ports, so all fragments of a backend come up. Those of other
        # conversations are put together and forwarded.
        ("ip protocol udp ip frag-off & 0x3fff != 0", "ip saddr", "hosts4"),
        ("exthdr frag exists", "ip6 saddr", "hosts6"),
    )
)
"""If a map has no entry for a packet, its rule ends there, and the packet goes its usual way."""

_HEAD: Final = f"""\
table bridge {TABLE}
delete table bridge {TABLE}
table bridge {TABLE} {{
    map backends4 {{ type ipv4_addr . inet_service : ether_addr; }}
    map backends6 {{ type ipv6_addr . inet_service : ether_addr; }}
    map hosts4 {{ type ipv4_addr : ether_addr; }}
    map hosts6 {{ type ipv6_addr : ether_addr; }}
    counter probes {{ }}
    chain divert {{
        type filter hook prerouting priority -300; policy accept;
        meta pkttype != other accept
        tcp sport {PROBE_PORT} tcp dport {_PORTS} counter name "probes"
"""
_FOOT: Final = "    }\n}\n"
"""The priority puts the chain before those of br_netfilter (0), which then give the packet to
iptables as one to this node. Frames that are for this node already, and broadcasts, are exempt."""

_GONE: Final = ("No such file",)
_PACKETS: Final = re.compile(r"packets ([0-9]+)", re.ASCII)
_ELEMENT: Final = re.compile(
    r"([0-9a-f]*[.:][0-9a-f.:]*)(?: \. ([0-9]+))? : ((?:[0-9a-f]{2}:){5}[0-9a-f]{2})", re.ASCII
)

Diverted = Mapping[Backend, str]
"""Backends whose replies are brought up, each with the address of its bridge."""
_NONE: Final[Diverted] = {}


class BridgeRules:
    """Installs the table and keeps its maps. All methods block, and are called in a thread."""

    def __init__(self) -> None:
        self.diverted: Diverted = _NONE
        """What the maps contain."""
        self.installed = False
        """Whether the table is there."""
        self.reason = ""
        """Why the rules could not be installed or changed."""
        self._absent = False
        """Whether the table is known not to be there: an earlier process may have left it."""

    def divert(self, wanted: Diverted) -> None:
        """Divert the replies of exactly these backends. Without any, there is no table."""
        if wanted == self.diverted and (self.installed if wanted else self._absent):
            return
        try:
            if not wanted:
                _remove()
            elif self.installed:
                self._change(wanted)
            else:
                self._replace(wanted)
        except OSError as error:
            self.diverted, self.installed, self._absent = _NONE, False, False
            self.reason = explain(error)
        else:
            self.diverted, self.installed, self.reason = dict(wanted), bool(wanted), ""
            self._absent = not wanted

    def answers_to_probes(self) -> int:
        """How many packets have answered probes since the table was made, whether they have come up
        or not. Raises OSError."""
        listing = run_command("nft", "list", "counter", "bridge", TABLE, "probes", fine=_GONE)
        found = _PACKETS.search(listing)
        return int(found[1]) if found else 0

    def restore(self) -> None:
        """Install the table again, whatever is there."""
        self.installed = False
        self.divert(self.diverted)

    def intact(self) -> bool:
        """Whether everything is there that was installed. Raises OSError."""
        listing = run_command("nft", "-n", "list", "table", "bridge", TABLE, fine=_GONE)
        found = {(parse_ip(address), port): mac for address, port, mac in _ELEMENT.findall(listing)}
        wanted = {(address, str(port)): mac for (address, port), mac in self.diverted.items()}
        wanted |= {(address, ""): mac for address, mac in _hosts(self.diverted).items()}
        complete = listing.count("ether daddr set") == len(_RULES)
        return complete and "hook prerouting" in listing and found == wanted

    def _change(self, wanted: Diverted) -> None:
        """Change only what differs: a cluster may have thousands of backends."""
        try:
            run_command("nft", "-f", "-", text="".join(_changes(self.diverted, wanted)))
        except OSError:
            self._replace(wanted)  # Another program may have removed the table.

    def _replace(self, wanted: Diverted) -> None:
        run_command("nft", "-f", "-", text=_table() + "".join(_changes(_NONE, wanted)))


def _table() -> str:
    return _HEAD + "".join(f"        {rule}\n" for rule in _RULES) + _FOOT


def _remove() -> None:
    fine = ("No such", "not supported")
    if is_installed("nft"):
        run_command("nft", "delete", "table", "bridge", TABLE, fine=fine)


def bridge_rules_error() -> str:
    """Why the rules cannot be installed here; "" if they can. Nothing is changed."""
    try:
        run_command("nft", "--check", "-f", "-", text=_table())
    except OSError as error:
        return explain(error)
    return ""


def may_divert(backend: Backend) -> bool:
    """Whether an endpoint may be named to nft. Its text comes from the cluster."""
    address, port = backend
    if not 0 < port < 65536 or parse_ip(address) != address:
        return False
    return is_host_address(address)


def _changes(before: Diverted, wanted: Diverted) -> Iterator[str]:
    """Lines for nft. An element whose address changes has to be deleted first."""
    gone = before.items() - wanted.items()
    new = wanted.items() - before.items()
    yield from _lines("delete", gone)
    yield from _lines("add", new)
    yield from _host_lines("delete", _hosts(before).items() - _hosts(wanted).items())
    yield from _host_lines("add", _hosts(wanted).items() - _hosts(before).items())


def _lines(verb: str, elements: Iterable[tuple[Backend, str]]) -> Iterator[str]:
    for (address, port), mac in sorted(elements):
        yield _line(verb, "backends", address, f"{address} . {port}", mac)


def _host_lines(verb: str, elements: Iterable[tuple[str, str]]) -> Iterator[str]:
    for address, mac in sorted(elements):
        yield _line(verb, "hosts", address, address, mac)


def _line(verb: str, name: str, address: str, key: str, mac: str) -> str:
    version = 6 if ":" in address else 4
    return f"{verb} element bridge {TABLE} {name}{version} {{ {key} : {mac} }}\n"


def _hosts(diverted: Diverted) -> dict[str, str]:
    return {address: mac for (address, _), mac in diverted.items()}
