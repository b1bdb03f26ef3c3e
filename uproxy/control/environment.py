"""Everything outside the program that the control process calls, as one value.

The defaults are the real things. tests/faults puts models in their places, which together are a
machine in which any call may fail.
"""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from uproxy.control.client_ip_preservation import ClientAddressCalls
from uproxy.control.cluster_client import SnapshotFiles
from uproxy.control.garbage import Garbage
from uproxy.control.load_balancer.announcing import AnnouncerCalls
from uproxy.control.machine import MachineCalls
from uproxy.control.workers import Process
from uproxy.host.claims import ClaimCalls
from uproxy.host.other_proxies import find_other_proxies
from uproxy.host.port_holders import Holder, Port, find_port_holders, service_proxy_at
from uproxy.http.server import HttpServer
from uproxy.net.sockets import LINUX, SocketCalls


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What each part of the program is given by `Daemon`."""

    sockets: SocketCalls = LINUX
    popen: Callable[..., Process] = subprocess.Popen
    machine: MachineCalls = field(default_factory=MachineCalls)
    claims: ClaimCalls = field(default_factory=ClaimCalls)
    client_addresses: ClientAddressCalls = field(default_factory=ClientAddressCalls)
    announcing: AnnouncerCalls = field(default_factory=AnnouncerCalls)
    new_health_server: Callable[..., HttpServer] = HttpServer
    snapshots: SnapshotFiles = field(default_factory=SnapshotFiles)
    garbage: Garbage = gc
    find_other_proxies: Callable[[], Sequence[str]] = find_other_proxies
    """Names the programs that serve Services on this node besides this one."""
    find_port_holders: Callable[[Collection[Port]], Mapping[Port, Holder]] = find_port_holders
    """Says which processes have ports."""
    service_proxy_at: Callable[[str, int], str] = service_proxy_at
    """Says which service proxy answers at a metrics address."""


LOCAL: Final = Environment()
