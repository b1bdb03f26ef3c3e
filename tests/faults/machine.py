"""What the control process finds around it: addresses, routes, HTTP ports, files."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.injection import Bug, FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.sockets import socket_calls
from uproxy.control.bridge_diversion import BridgeCalls
from uproxy.control.machine import MachineCalls
from uproxy.core.route import Backend
from uproxy.host.claims import ClaimCalls
from uproxy.host.interfaces import Interfaces
from uproxy.host.pod_networks import PodNetworks, Segment
from uproxy.http.server import ServeError


class Surroundings:
    """In the place of netlink, and of files that name other machines."""

    def __init__(self, kernel: Kernel, faults: FaultInjector) -> None:
        self.kernel = kernel
        self._faults = faults
        self._monitors: list[Monitor] = []

    async def read_interfaces(self) -> Interfaces:
        await asyncio.sleep(0.001)
        self.kernel.call("addresses")
        if self._faults.happens("bug"):
            raise Bug("a message of the kernel's")
        return Interfaces(frozenset(self.kernel.addresses), frozenset())

    def gateways(self) -> frozenset[str]:
        self.kernel.call("addresses")
        return frozenset(("192.0.2.254",))

    def name_servers(self) -> frozenset[str]:
        return frozenset()

    def resolve_hosts(self, urls: Sequence[str]) -> frozenset[str]:
        self.kernel.call("addresses")
        return frozenset(("192.0.2.250",))

    def pod_networks(self, clusters: Sequence[str]) -> PodNetworks:
        """All pods of the cluster are behind one bridge of this node."""
        self.kernel.call("addresses")
        if self._faults.happens("bug"):
            raise Bug("a route of the kernel's")
        mac = self.kernel.bridge_mac
        segments = tuple(Segment(each, 3, "cni0", mac) for each in clusters)
        return PodNetworks(tuple(clusters), segments)

    def machine_calls(self) -> MachineCalls:
        return MachineCalls(
            read_interfaces=self.read_interfaces,
            gateways=self.gateways,
            name_servers=self.name_servers,
            resolve_hosts=self.resolve_hosts,
            monitor=self.monitor,
            descriptor_limit=socket_calls(self.kernel).descriptor_limit,
            read_pod_networks=self.pod_networks,
            route_monitor=self.monitor,
        )

    def claim_calls(self) -> ClaimCalls:
        return ClaimCalls(
            add=self.add_claims,
            release=self.release_claims,
            held=self.held_claims,
            permission_error=self.permission_error,
            take_lock=self.take_lock,
        )

    def monitor(self) -> Monitor:
        return Monitor(self._monitors)

    def changed(self) -> None:
        """The kernel tells, and sometimes it does not."""
        if not self._faults.happens("silence"):
            for each in self._monitors:
                each.changed.set()

    def add_claims(self, addresses: Sequence[str]) -> Mapping[str, OSError]:
        return self._request(addresses, self.kernel.claims.add)

    def release_claims(self, addresses: Sequence[str]) -> Mapping[str, OSError]:
        return self._request(addresses, self.kernel.claims.discard)

    def _request(
        self, addresses: Sequence[str], act: Callable[[str], None]
    ) -> Mapping[str, OSError]:
        self.kernel.call("netlink")
        if self._faults.happens("bug"):
            raise Bug("netlink")
        failures = {}
        for each in addresses:
            error = self._faults.error("route")
            if error is not None:
                failures[each] = error
            else:
                act(each)
        return failures

    def held_claims(self) -> frozenset[str]:
        self.kernel.call("netlink")
        return frozenset(self.kernel.claims)

    def permission_error(self) -> OSError | None:
        return None

    def take_lock(self, *_: object, **__: object) -> Any:
        self.kernel.call("lock")
        return Lock()


class Monitor:
    """In the place of AddressMonitor."""

    def __init__(self, all_of_them: list[Monitor]) -> None:
        self.changed = asyncio.Event()
        self._all = all_of_them

    async def __aenter__(self) -> Monitor:
        self._all.append(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._all.remove(self)

    async def wait(self, at_most: float) -> bool:
        try:
            async with asyncio.timeout(at_most):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True


class Lock:
    """In the place of the socket that says who has the claims, or shows clients' addresses."""

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass


class Transparency:
    """In the place of ClientAddressRules."""

    def __init__(self, kernel: Kernel) -> None:
        self.families: tuple[str, ...] = ()
        self.reason = ""
        self.temporary = False
        self._kernel = kernel

    def install(self) -> None:
        self._work()
        try:
            self._kernel.call("transparent")
        except OSError as error:
            self.families, self.reason, self.temporary = (), str(error.strerror), True
        else:
            self.families, self.reason, self.temporary = ("IPv4", "IPv6"), "", False

    def intact(self) -> bool:
        self._work()
        return not self._kernel.faults.happens("transparent")

    def remove(self) -> tuple[str, ...]:
        self._work()
        self._kernel.call("transparent")
        self._kernel.diverted = {}
        return ()

    def _work(self) -> None:
        if self._kernel.faults.happens("bug"):
            raise Bug("nft")


class Bridge:
    """In the place of BridgeRules, and of what the kernel has of them."""

    def __init__(self, kernel: Kernel) -> None:
        self.diverted: Mapping[Backend, str] = {}
        self.installed = False
        self.reason = ""
        self._kernel = kernel

    def divert(self, wanted: Mapping[Backend, str]) -> None:
        if self.installed and wanted == self.diverted:
            return
        if self._kernel.faults.happens("bug"):
            raise Bug("nft")
        try:
            self._kernel.call("transparent")
        except OSError as error:
            self.diverted, self.installed, self.reason = {}, False, str(error.strerror)
        else:
            self.diverted, self.installed, self.reason = dict(wanted), bool(wanted), ""
            self._kernel.diverted = dict(wanted)

    def restore(self) -> None:
        self.installed = False
        self.divert(self.diverted)

    def intact(self) -> bool:
        if self._kernel.faults.happens("transparent"):
            self._kernel.diverted = {}
        return self._kernel.diverted == self.diverted


def bridge_calls(kernel: Kernel) -> BridgeCalls:
    return BridgeCalls(
        new_rules=lambda: Bridge(kernel),  # type: ignore[arg-type, return-value]
        neighbours=lambda _: {},
        replies_come_back=lambda *_: None,
    )


class HttpServers:
    """In the place of HTTP servers."""

    def __init__(self, kernel: Kernel, faults: FaultInjector) -> None:
        self.open: dict[tuple[str, int], HttpServer] = {}
        self.kernel = kernel
        self.faults = faults

    def server(
        self, target: object, addresses: Sequence[Any], *, name: str, **_: Any
    ) -> HttpServer:
        return HttpServer(self, [(each.host, each.port) for each in addresses], name)


class HttpServer:
    """One of them, on all of its addresses or on none."""

    def __init__(self, servers: HttpServers, places: Sequence[tuple[str, int]], name: str) -> None:
        self._servers = servers
        self._places = places
        self._name = name

    async def open(self) -> None:
        await asyncio.sleep(0.001)
        try:
            self._servers.kernel.call("http", self._name)
            if any(place in self._servers.open for place in self._places):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        except OSError as error:
            raise ServeError(f"{self._name}: {error.strerror}") from error
        if self._servers.faults.happens("bug"):
            raise Bug("the HTTP library")
        self._servers.open |= dict.fromkeys(self._places, self)

    async def close(self) -> None:
        await asyncio.sleep(0.001)
        for place in self._places:
            if self._servers.open.get(place) is self:
                del self._servers.open[place]


class Disk:
    """Files that are real, but not always."""

    def __init__(self, kernel: Kernel, save: Callable[..., None], load: Callable[..., Any]) -> None:
        self._kernel = kernel
        self._save, self._load = save, load

    def save(self, path: Path, snapshot: Any) -> None:
        self._kernel.call("write", path.name)
        if self._kernel.faults.happens("bug"):
            raise Bug("encoding")
        self._save(path, snapshot)
        if self._kernel.faults.happens("spoil"):
            path.write_bytes(path.read_bytes()[:-40])

    def load(self, path: Path, **keywords: Any) -> Any:
        self._kernel.call("read", path.name)
        return self._load(path, **keywords)
