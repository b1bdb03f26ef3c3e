"""Rules in the kernel without which backends cannot be shown the addresses of clients.

A worker's backend socket may be bound to the client's address (IP_TRANSPARENT). The backend's
replies are then addressed to the client, and this node would forward them. Three things bring them
to the socket instead (kernel documentation, networking/tproxy.rst): an nftables chain that sets a
mark on packets for which there is a transparent socket, a routing rule (`ip rule`) that sends
marked packets to a routing table of its own, and a route in that table that makes every address
local.

One more rule is for reverse path filters that look up the route back to a packet's source with the
packet's mark: that of the kernel for IPv4 where the sysctl src_valid_mark is set, as wg-quick(8)
does, and that of firewalld for IPv6 unless IPv6_rpfilter is "no" (`fib saddr . mark . iif oif
missing drop`, at a priority after ours). They would find the table in which every address is local,
take the source for an address of this node, and drop the packet. Those look-ups have the incoming
interface lo, so a rule for lo, ahead of the other one, sends them to the main table.

All of this is ours by name or number. `uproxy.control.client_ip_preservation` decides when it is
installed and removed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from uproxy.core.ip import Family
from uproxy.host.commands import NOTHING, explain, is_installed, is_temporary, run_command
from uproxy.host.namespace_lock import CLIENT_ADDRESSES, Locked, take_lock
from uproxy.net.client_ports import CLIENT_PORTS

TABLE: Final = "uproxy"
"""Name of the nftables table, of family inet."""
MARK: Final = "0x75"
ROUTES: Final = "117"
"""Number of the routing table, and protocol number of our rules and routes."""

_RULES: Final = f"""\
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
    chain divert {{
        type filter hook prerouting priority mangle; policy accept;
        iif != "lo" socket transparent 1 meta mark set {MARK} accept
    }}
}}
"""
"""One transaction, which replaces the table. The first line makes the table if it does not exist,
because the second one would fail otherwise. Packets from lo are exempt from the socket look-up,
since no pod is on the other side of lo. The hook comes before the routing decision, which the mark
is for."""

_DEFRAGMENT: Final = f"""\
table inet {TABLE} {{
    chain defragment {{
        meta l4proto udp tproxy to :1
    }}
}}
"""
"""A chain to which no packet comes. As long as it exists, the kernel puts fragments together before
the chains at prerouting (nft_tproxy_init calls nf_defrag_ipv4_enable, and the same for IPv6). Of
fragments, only the first one has the ports by which a socket is found. So without this, and without
connection tracking, a reply over UDP that is larger than the MTU would be lost."""

_RESETS: Final = f"""\
table inet {TABLE} {{
    chain resets {{
        type filter hook output priority mangle; policy accept;
        tcp sport {CLIENT_PORTS.start}-{CLIENT_PORTS.stop - 1} \
            tcp flags & (fin | syn | rst | ack) == rst fib saddr type != local drop
    }}
}}
"""
"""Protects connections that a pod has made itself from one of CLIENT_PORTS. If a worker dials the
same backend from the same port, the backend takes the SYN for a stray one of the pod's connection,
and acknowledges what it has got of that (RFC 5961, 4.2). The worker's socket would answer that with
a reset, which ends the pod's connection (RFC 9293, 3.10.7.3). Such a reset has no ACK, unlike those
of a socket that is closed. The dial times out, and the next one has another port.

A reset without ACK is also the answer to data for a socket that was closed in one direction after
the other. The backend then gets it from the pod, when it sends its data again."""

_OPTIONAL: Final = (_RESETS + _DEFRAGMENT, _RESETS, _DEFRAGMENT, "")
"""The kernel may lack nft_fib or nft_tproxy."""

_BY_US: Final = ("protocol", ROUTES)
_REVERSE_PATH: Final = ("priority", "116", "iif", "lo", "fwmark", MARK, "lookup", "main")
_DIVERT: Final = ("priority", "117", "fwmark", MARK, "lookup", ROUTES)
"""Their priorities put them after the table of local addresses (0), and before the rules that
network plugins and VPNs usually have. _REVERSE_PATH comes before _DIVERT, or it would never
apply."""
_POLICY: Final = (_REVERSE_PATH, _DIVERT)

_IPV6_TRANSPARENT: Final = 75  # Not in Python's socket module.


class _Version(NamedTuple):
    """The names that `ip` and sockets use for one address family."""

    family: Family
    flag: str
    all_addresses: str
    unassigned: str
    """An address that no machine has (RFC 7600, RFC 6666)."""
    domain: socket.AddressFamily
    level: int
    transparent: int


_VERSIONS: Final = (
    _Version(
        *("IPv4", "-4", "0.0.0.0/0", "192.0.0.8"),
        *(socket.AF_INET, socket.SOL_IP, socket.IP_TRANSPARENT),
    ),
    _Version(
        *("IPv6", "-6", "::/0", "100::8"),
        *(socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
    ),
)


class ClientAddressRules:
    """Installs the rules, and says whether backends can be shown the addresses of clients."""

    def __init__(self) -> None:
        self.families: tuple[Family, ...] = ()
        """The address families for which it works."""
        self.reason = ""
        """Why it does not work."""
        self.temporary = False
        """Whether that may pass, because this machine is only short of memory or descriptors."""

    def install(self) -> None:
        """Install all rules, whatever is there already, and find out what works."""
        working: list[Family] = []
        try:
            for version in _versions():
                _try_socket(version)
                _install_return_route(version)
                working.append(version.family)
            _install_chain()
            self.families, self.reason, self.temporary = tuple(working), "", False
        except OSError as error:
            self.families, self.reason, self.temporary = (), explain(error), is_temporary(error)

    def intact(self) -> bool:
        """Whether everything that `install` has made is still there."""
        with suppress(OSError):
            return table_exists() and all(
                return_route_exists(each) for each in _VERSIONS if each.family in self.families
            )
        return False


def remove_client_address_rules() -> Sequence[str]:
    """Remove all rules of ours, whichever process has made them; returns what was there.

    Raises OSError: EBUSY while a running uproxy needs them.
    """
    try:
        lock = take_lock(CLIENT_ADDRESSES)
    except Locked as error:
        raise OSError(error.errno, "a running uproxy needs them") from None
    with lock:
        return remove_rules()


def table_exists() -> bool:
    """Whether the chain that sets the mark is there. Raises OSError."""
    listing = run_command("nft", "list", "table", "inet", TABLE, fine=["No such file"])
    return "socket transparent 1" in listing and "hook prerouting" in listing


def return_route_exists(version: _Version) -> bool:
    """Whether marked packets are routed to this node. Raises OSError."""
    ip = ("ip", "-json", version.flag)
    rules = json.loads(run_command(*ip, "-N", "rule", "show"))
    found = {str(each["priority"]) for each in rules if each.get("protocol") == ROUTES}
    if not found.issuperset(rule[1] for rule in _POLICY):
        return False
    # `ip` fails for a routing table without routes: to the kernel it does not exist.
    listing = run_command(*ip, "route", "show", "table", ROUTES, fine=["does not exist"])
    return '"local"' in listing


def _versions() -> Iterator[_Version]:
    """The address families that this kernel has."""
    for version in _VERSIONS:
        with suppress(OSError), socket.socket(version.domain, socket.SOCK_STREAM) as sock:
            sock.bind(("::1" if version.family == "IPv6" else "127.0.0.1", 0))
            yield version


def _try_socket(version: _Version) -> None:
    """Bind an address that is not this node's, as workers will. Raises OSError."""
    with socket.socket(version.domain, socket.SOCK_STREAM) as sock:
        sock.setsockopt(version.level, version.transparent, 1)
        sock.bind((version.unassigned, 0))


def _install_chain() -> None:
    for optional in _OPTIONAL:
        try:
            run_command("nft", "-f", "-", text=_RULES + optional)
        except OSError:
            if not optional:
                raise
        else:
            return


def _install_return_route(version: _Version) -> None:
    ip = ("ip", version.flag)
    run_command(*ip, "route", "replace", *_route(version), *_BY_US)
    for rule in _POLICY:
        run_command(*ip, "rule", "add", *rule, *_BY_US, fine=("File exists",))


def _route(version: _Version) -> tuple[str, ...]:
    return ("local", version.all_addresses, "dev", "lo", "table", ROUTES)


def remove_rules() -> Sequence[str]:
    """Remove all rules that are there; returns what was removed. The caller must hold the lock.
    Raises OSError."""
    return [name for name, command in _ours() if _removed(*command)]


def _ours() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Everything that there may be, with the command that removes it."""
    for family in ("inet", "bridge"):
        yield f"nftables table {family} {TABLE}", ("nft", "delete", "table", family, TABLE)
    for version in _VERSIONS:
        ip = ("ip", version.flag)
        for rule in _POLICY:
            yield f"{version.family} rule {' '.join(rule)}", (*ip, "rule", "del", *rule, *_BY_US)
        route = _route(version)
        yield f"{version.family} route {' '.join(route)}", (*ip, "route", "del", *route, *_BY_US)


def _removed(*words: str) -> bool:
    if not is_installed(words[0]):
        return False  # Without the program, nothing can have been made by it.
    return run_command(*words, fine=("No such", "does not exist", "not supported")) is not NOTHING
