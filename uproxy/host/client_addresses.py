"""What the kernel needs so that backends can be shown the addresses of clients.

A worker's backend socket may have the client's address (IP_TRANSPARENT). The backend's replies are
then addressed to the client, and would be forwarded to it. Three things bring them back to the
socket: a chain that marks packets for which there is such a socket, a rule that sends what is
marked to a routing table of its own, and a route there that makes every address local. (Kernel
documentation: networking/tproxy.rst.)

IPv4 needs another rule where the sysctl src_valid_mark is set, as wg-quick(8) does: the kernel
then looks up the way back to a packet's source by the packet's mark, would find itself, and drop
it as martian. Those look-ups have the incoming interface lo.

All of it is ours by name or number. `uproxy.control.client_ip_preservation` decides when it is made
and removed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.ip import Family
from uproxy.host.namespace_lock import CLIENT_ADDRESSES, Locked, take_lock

TABLE: Final = "uproxy"
"""Of nftables, family inet."""
MARK: Final = "0x75"
ROUTES: Final = "117"
"""Number of the routing table, and the protocol number of all that is ours."""

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
"""One transaction; the first line is there so that the second one finds something. No pod is on
the other side of lo, whose packets are spared the look-up."""

_TIMEOUT: Final = 10.0
"""Seconds that a command may take."""
_PATH: Final = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_PACKAGES: Final = {"nft": "nftables", "ip": "iproute2"}

_BY_US: Final = ("protocol", ROUTES)
_WAY_BACK: Final = ("priority", "116", "iif", "lo", "fwmark", MARK, "lookup", "main")
_DIVERT: Final = ("priority", "117", "fwmark", MARK, "lookup", ROUTES)
"""Ahead of what network plugins and VPNs use as a rule, behind the table of local addresses."""


_IPV6_TRANSPARENT: Final = 75


class _Version(NamedTuple):
    """What `ip`, nft and sockets call the things of one address family."""

    family: Family
    flag: str
    rules: tuple[tuple[str, ...], ...]
    everything: str
    nobody: str
    """An address that no machine has: RFC 7600, RFC 6666."""
    domain: socket.AddressFamily
    level: int
    transparent: int


_VERSIONS: Final = (
    _Version(
        *("IPv4", "-4", (_WAY_BACK, _DIVERT), "0.0.0.0/0", "192.0.0.8"),
        *(socket.AF_INET, socket.SOL_IP, socket.IP_TRANSPARENT),
    ),
    _Version(
        *("IPv6", "-6", (_DIVERT,), "::/0", "100::8"),
        *(socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
    ),
)


class ClientAddressRules:
    """Whether backends can be shown the addresses of clients."""

    def __init__(self) -> None:
        self.families: tuple[Family, ...] = ()
        """Those in which they can."""
        self.reason = ""
        """Why not, where they cannot."""
        self.passing = False
        """Whether that may pass: this machine is short of something."""

    def install(self) -> None:
        """Set everything up, whatever is there already, and find out what works."""
        working: list[Family] = []
        try:
            for version in _versions():
                _try_socket(version)
                _lead_back(version)
                working.append(version.family)
            _run("nft", "-f", "-", text=_RULES)
            self.families, self.reason, self.passing = tuple(working), "", False
        except OSError as error:
            self.families, self.reason, self.passing = (), explain(error), passes(error)

    def intact(self) -> bool:
        """Whether all is there that `install` has made."""
        with suppress(OSError):
            return table_is_there() and all(
                way_back_is_there(each) for each in _VERSIONS if each.family in self.families
            )
        return False


def remove_client_address_rules() -> Sequence[str]:
    """Remove everything of ours, whichever process has made it; returns what was there.

    Raises OSError: EBUSY while a running uproxy needs it.
    """
    try:
        lock = take_lock(CLIENT_ADDRESSES)
    except Locked as error:
        raise OSError(error.errno, "a running uproxy needs them") from None
    with lock:
        return remove_rules()


def table_is_there() -> bool:
    """Whether packets are marked. Raises OSError."""
    listing = _run("nft", "list", "table", "inet", TABLE, fine=["No such file"])
    return "socket transparent 1" in listing and "hook prerouting" in listing


def way_back_is_there(version: _Version) -> bool:
    """Whether what is marked is routed to this node. Raises OSError."""
    ip = ("ip", "-json", version.flag)
    rules = json.loads(_run(*ip, "-N", "rule", "show"))
    found = {str(each["priority"]) for each in rules if each.get("protocol") == ROUTES}
    if not found.issuperset(rule[1] for rule in version.rules):
        return False
    # An empty table does not exist.
    listing = _run(*ip, "route", "show", "table", ROUTES, fine=["does not exist"])
    return '"local"' in listing


def _versions() -> Iterator[_Version]:
    """Those that this kernel has."""
    for version in _VERSIONS:
        with suppress(OSError), socket.socket(version.domain, socket.SOCK_STREAM) as sock:
            sock.bind(("::1" if version.family == "IPv6" else "127.0.0.1", 0))
            yield version


def _try_socket(version: _Version) -> None:
    """Take an address that is not ours. Raises OSError."""
    with socket.socket(version.domain, socket.SOCK_STREAM) as sock:
        sock.setsockopt(version.level, version.transparent, 1)
        sock.bind((version.nobody, 0))


def _lead_back(version: _Version) -> None:
    ip = ("ip", version.flag)
    _run(*ip, "route", "replace", *_route(version), *_BY_US)
    for rule in version.rules:
        _run(*ip, "rule", "add", *rule, *_BY_US, fine=("File exists",))


def _route(version: _Version) -> tuple[str, ...]:
    return ("local", version.everything, "dev", "lo", "table", ROUTES)


def remove_rules() -> Sequence[str]:
    """Remove what is there; returns what it was. Raises OSError."""
    return [name for name, command in _ours() if _removed(*command)]


def _ours() -> Iterator[tuple[str, tuple[str, ...]]]:
    """What there may be, with the command that removes it."""
    yield f"nftables table inet {TABLE}", ("nft", "delete", "table", "inet", TABLE)
    for version in _VERSIONS:
        ip = ("ip", version.flag)
        for rule in version.rules:
            yield f"{version.family} rule {' '.join(rule)}", (*ip, "rule", "del", *rule, *_BY_US)
        route = _route(version)
        yield f"{version.family} route {' '.join(route)}", (*ip, "route", "del", *route, *_BY_US)


def _removed(*words: str) -> bool:
    if shutil.which(words[0], path=_PATH) is None:
        return False  # Nor can it have made anything.
    return _run(*words, fine=("No such", "does not exist", "not supported")) is not _NOTHING


_NOTHING: Final = "\0"
"""What `_run` returns when a command has failed in a way that is fine."""


def _run(*words: str, text: str = "", fine: Sequence[str] = ()) -> str:
    """What a command prints, or `_NOTHING` if it fails with one of the errors that are fine.
    Raises OSError."""
    command = shutil.which(words[0], path=_PATH)
    if command is None:
        package = _PACKAGES[words[0]]
        raise OSError(errno.ENOENT, f"{words[0]} is not installed (Debian: {package})")
    try:
        done = subprocess.run(
            [command, *words[1:]],
            input=text,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            env={"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{words[0]} takes more than {_TIMEOUT:g} s") from None
    if not done.returncode:
        return done.stdout
    if any(each in done.stderr for each in fine):
        return _NOTHING
    number = errno.EPERM if "not permitted" in done.stderr else errno.EIO
    raise OSError(number, f"{words[0]}: {' '.join(done.stderr.split())}")


def passes(error: OSError) -> bool:
    """Whether something that has failed may well succeed later."""
    return error.errno in RESOURCE_ERRORS | {errno.EAGAIN, errno.ETIMEDOUT}


def explain(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "needs CAP_NET_ADMIN"
    return error.strerror or str(error)
