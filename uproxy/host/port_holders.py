"""Which process has a port of this node, as far as this process may know."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from uproxy.core.protocols import TCP, UDP

UPROXY: Final = "uproxy"
KUBE_PROXY: Final = "kube-proxy"

_TABLES: Final = ((TCP, "tcp", "0A"), (TCP, "tcp6", "0A"), (UDP, "udp", "07"), (UDP, "udp6", "07"))
"""The files in /proc/net, and the state of a socket there that has a port for itself: TCP_LISTEN,
and TCP_CLOSE for a UDP socket that is not connected."""
_WORKER: Final = "uproxy.dataplane.__main__"
_SECONDS: Final = 1.0
"""That a program gets to answer."""


class Port(NamedTuple):
    """A port, at whatever address."""

    protocol: str
    number: int


class Holder(NamedTuple):
    """The process that has a port."""

    program: str = ""
    """UPROXY, KUBE_PROXY, or the name of another program; "": it is not known."""
    process: int = 0
    user: str = ""


class _Socket(NamedTuple):
    port: Port
    inode: str
    user: int


def find_port_holders(ports: Collection[Port], proc: Path = Path("/proc")) -> Mapping[Port, Holder]:
    """The holders of ports. The process is known if this one may look into it:
    as root, or if both have the same user. It reads many files, so it belongs in a thread."""
    wanted = frozenset(ports)
    sockets = [each for each in _sockets(proc) if each.port in wanted]
    holders = {each.port: Holder(user=_user(each.user)) for each in sockets}
    processes = _processes_with({each.inode for each in sockets}, proc)
    for each in sockets:
        if each.inode in processes:
            program, process = processes[each.inode]
            holders[each.port] = Holder(program, process, _user(each.user))
    hidden = wanted - holders.keys()
    if hidden:
        holders |= dict.fromkeys(hidden, _pausing_uproxy(proc))
    return holders


def service_proxy_at(host: str, port: int) -> str:
    """Which service proxy answers at a metrics address: UPROXY, KUBE_PROXY, or "" for none.
    kube-proxy has not said "userspace" since 1.26."""
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/proxyMode")
        mode = connection.getresponse().read(20)
        if mode == b"userspace":
            return UPROXY
        if mode in (b"iptables", b"ipvs", b"nftables"):
            return KUBE_PROXY
    return ""


def _sockets(proc: Path) -> Iterator[_Socket]:
    for protocol, table, state in _TABLES:
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == state:
                    number = int(fields[1].rpartition(":")[2], 16)
                    yield _Socket(Port(protocol, number), fields[9], int(fields[7]))


def _processes_with(inodes: Collection[str], proc: Path) -> Mapping[str, tuple[str, int]]:
    """For each socket: the program and the process that has it, other than this process and its
    workers. A worker of another uproxy stands for that uproxy."""
    wanted = {f"socket:[{each}]": each for each in inodes}
    found: dict[str, tuple[str, int]] = {}
    for process in _numbers(proc):
        with contextlib.suppress(OSError):
            links = {os.readlink(each) for each in (proc / str(process) / "fd").iterdir()}
            held = links & wanted.keys()
            if not held:
                continue
            program = _program(process, proc)
            if program[1] != os.getpid():
                found |= {wanted[each]: program for each in held}
    return found


def _pausing_uproxy(proc: Path) -> Holder:
    """Another uproxy, if there is one: who has a port that no table shows. A paused listener is
    bound and does not listen, which hardly any other program does for long."""
    for process in _numbers(proc):
        with contextlib.suppress(OSError):
            program, number = _program(process, proc)
            if program == UPROXY and number != os.getpid() and _is_near(process, proc):
                return Holder(program, number)
    return Holder()


def _is_near(process: int, proc: Path) -> bool:
    """Whether a process may be in the network namespace of this one, as far as this one may know.
    Those of nodes in containers are not, and cannot have a port of this node."""
    try:
        there = os.readlink(proc / str(process) / "ns" / "net")
        return there == os.readlink(proc / "self" / "ns" / "net")
    except OSError:
        return True


def _numbers(proc: Path) -> Iterator[int]:
    return (int(each.name) for each in proc.iterdir() if each.name.isdecimal())


def _program(process: int, proc: Path) -> tuple[str, int]:
    directory = proc / str(process)
    words = (directory / "cmdline").read_text(errors="replace").split("\0")[:8]
    if any(_WORKER in each for each in words):
        # Behind the name, which may have spaces and brackets: state, parent (proc(5)).
        stat = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return UPROXY, int(stat[1])
    if "uproxy.cli" in words or any(Path(each).name == UPROXY for each in words[:2]):
        return UPROXY, process
    return (directory / "comm").read_text(errors="replace").strip(), process


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
