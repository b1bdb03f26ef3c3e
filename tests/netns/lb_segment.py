"""Nodes on one Ethernet segment, each with a uproxy that follows one API server.

    client ── segment ──┬── n1 ──┬── management (the fake API server)
                        ├── n2 ──┤
                        └── ... ─┴── pods

Each node has three links, which are cut one by one: eth0 to the segment (192.0.2.0/24 and
2001:db8:1::/64), mgmt0 to the API server (203.0.113.0/24), and pod0 to all pods (198.51.100.0/24
and 2001:db8:2::/64). Load-balancer addresses are those from 192.0.2.192 and 2001:db8:1::f00 on.
With `interfaces=2`, each node also has an eth1 on the same segment.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.fake_api.kinds import LEASES, SERVICES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.netns.announcements import Capture, Datagrams, Questions
from tests.netns.kit import Namespace, Place, namespace
from tests.netns.node import Node, program, slices, wait_for
from tests.netns.peers import Pod
from uproxy.core.announcing.lease_objects import decode, lease_name
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.cluster.load_balancer import ASSIGNED

POOL: Final = "192.0.2.192/27,2001:db8:1::f00/120"
PORT: Final = 80
_API = "203.0.113.1"
_API_PORT = 6443
_POD_PORT = 8080
_OPTIONS = ("--preserve-client-ip", "never", "--lb", "pools", "--lb-pool", POOL)


def vip(number: int) -> tuple[str, str]:
    """Load-balancer addresses of both families, from 0 to 31."""
    return f"192.0.2.{192 + number}", f"2001:db8:1::f{number:02x}"


class Machine:
    """A node: its namespace, its links, and the uproxy on it, if it runs."""

    def __init__(self, name: str, space: Namespace, number: int, segment: Segment) -> None:
        self.name = name
        self.number = number
        self.place = Place(space, f"192.0.2.{10 + number}", f"2001:db8:1::{10 + number:x}")
        self.mac = self.mac_of("eth0")
        self._segment = segment
        self._stack = ExitStack()
        self._pids: list[int] = []
        self.program: Node | None = None

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"

    @property
    def space(self) -> Namespace:
        return self.place.space

    def mac_of(self, interface: str) -> str:
        return self.space.run("cat", f"/sys/class/net/{interface}/address").strip()

    @property
    def running(self) -> Node:
        assert self.program is not None, f"nothing runs on {self.name}"
        return self.program

    @property
    def log(self) -> str:
        """The end of what was logged here."""
        return "" if self.program is None else self.program.log[-4000:]

    @property
    def runs(self) -> bool:
        """Whether a uproxy runs here, frozen or not."""
        return self.program is not None and self.program.process.poll() is None

    def start(self, *options: str, ready: bool = True) -> Node:
        """Start a uproxy; the one before it must have ended. Other tests at work take no processor
        time from it: it is to start, or to take over, within seconds."""
        self._stack.close()
        directory = self._segment.directory / self.name
        source = ("--kubeconfig", str(self._segment.kubeconfig))
        words = (*self._segment.options, *options)
        running = program(
            self.space,
            directory,
            *words,
            source=source,
            name=self.name,
            ready=False,
            wrapper=("nice", "-n", "-10"),
        )
        self.program = self._stack.enter_context(running)
        if ready:
            self.wait_ready()
        return self.program

    def wait_ready(self) -> None:
        self.running.wait_ready()
        self._pids = [self.running.process.pid, *self.running.worker_pids()]

    def stop(self) -> int:
        """SIGTERM."""
        code = self.running.stop()
        self._forget()
        return code

    def kill(self, *, workers: bool = True) -> None:
        """SIGKILL for all processes, or for the control process alone."""
        for pid in self._pids if workers else self._pids[:1]:
            _send(pid, signal.SIGKILL)
        self.running.process.wait(15)
        self._forget()

    def freeze(self) -> None:
        """SIGSTOP for all processes."""
        for pid in self._pids:
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._pids:
            _send(pid, signal.SIGCONT)

    def power_off(self) -> None:
        """Everything is gone at once: the links first, so that there is no good-bye."""
        self.cut(wire=True, api=True)
        self.kill()

    def power_on(self, *options: str) -> None:
        """As after a boot: no address that was added is left."""
        for each in self.held():
            self.space.run("ip", "addr", "del", each, "dev", "eth0", check=False)
        self.heal()
        self.start(*options)

    def cut(self, *, wire: bool = False, api: bool = False) -> None:
        """Frames are lost silently: the link stays up, as behind a switch that fails."""
        if wire:
            self._segment.lan.ip(f"link set {self.name} nomaster")
        if api:
            self._segment.management.ip(f"link set {self.name} nomaster")

    def heal(self) -> None:
        self._segment.lan.ip(f"link set {self.name} master br0")
        self._segment.management.ip(f"link set {self.name} master br0")

    def carrier(self, up: bool) -> None:
        """Whether the far end of eth0 is up."""
        self._segment.lan.ip(f"link set {self.name} {'up' if up else 'down'}")

    def shown(self, interface: str = "eth0") -> str:
        """The addresses of an interface, with their lifetimes, as ip(8) shows them."""
        return self.space.run("ip", "addr", "show", "dev", interface)

    def held(self, interface: str = "eth0") -> set[str]:
        """Load-balancer addresses on an interface, with their prefix lengths."""
        words = self.shown(interface).split()
        found = {after for word, after in pairwise(words) if "inet" in word}
        return {each for each in found if each.endswith(("/32", "/128"))}

    def holds(self, address: str) -> bool:
        """On whichever interface."""
        return f" {address}/" in self.space.run("ip", "-o", "addr", "show")

    def close(self) -> None:
        self.thaw()
        self._stack.close()

    def _forget(self) -> None:
        self._pids = []


class Announced(NamedTuple):
    """A node, and an address of each family that it announces."""

    node: Machine
    addresses: tuple[str, str]


class Segment:
    """What the picture shows. `options` are those of every uproxy that is started."""

    def __init__(
        self,
        lan: Namespace,
        management: Namespace,
        client: Place,
        pods: Namespace,
        api: ThreadedApi,
        directory: Path,
    ) -> None:
        self.lan = lan
        self.management = management
        self.client = client
        self.api = api
        self.directory = directory
        self.kubeconfig = write_kubeconfig(directory / "kubeconfig", api.url)
        self.options: tuple[str, ...] = _OPTIONS
        self.nodes: dict[str, Machine] = {}
        self.pods: dict[str, Pod] = {}
        self.pod_space = pods
        self.capture: Capture
        self._names: dict[str, int] = {}

    def __getitem__(self, name: str) -> Machine:
        return self.nodes[name]

    @property
    def by_pod_address(self) -> Mapping[str, str]:
        """Names of nodes, by the addresses with which pods see them."""
        return {
            address: each.name for each in self.nodes.values() for address in _pod_side(each.number)
        }

    def start(self, *names: str) -> None:
        """Start a uproxy on these nodes (on all), and wait until they are ready."""
        chosen = [self.nodes[each] for each in names or self.nodes]
        for each in chosen:
            each.start(ready=False)
        for each in chosen:
            each.wait_ready()

    def serve(
        self,
        name: str,
        addresses: Sequence[str],
        *,
        on: Sequence[str] = ("n1",),
        assigned: bool = True,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        ports: Sequence[Mapping[str, Any]] = (),
        **spec: Any,
    ) -> None:
        """Create or change a Service that asks for these addresses, with one pod, which is said to
        be on each of these nodes ("-n1": there, but not serving). `assigned`: uproxy has assigned
        the addresses already."""
        number = self._names.setdefault(name, len(self._names) + 1)
        asked = {"uproxy.dev/loadBalancerIPs": ",".join(addresses)} if addresses else {}
        status: dict[str, Any] = {}
        if assigned:
            asked[ASSIGNED] = ",".join(addresses)
            status = {"loadBalancer": {"ingress": [{"ip": each} for each in addresses]}}
        families = list(dict.fromkeys("IPv6" if ":" in each else "IPv4" for each in addresses))
        families = families or ["IPv4", "IPv6"]
        cluster_ips = {"IPv4": f"127.96.7.{number}", "IPv6": f"2001:db8:3::{number:x}"}
        plain = [{"name": "t", "port": PORT, "protocol": "TCP", "targetPort": _POD_PORT}]
        plain += [{"name": "u", "port": PORT, "protocol": "UDP", "targetPort": _POD_PORT}]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": dict(labels or {}),
                "annotations": {**asked, **(annotations or {})},
            },
            "spec": {
                "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": False,
                "clusterIPs": [cluster_ips[each] for each in families],
                "clusterIP": cluster_ips[families[0]],
                "ipFamilies": families,
                "ipFamilyPolicy": "RequireDualStack" if len(families) > 1 else "SingleStack",
                "selector": {"app": name},
                "ports": [dict(each) for each in ports or plain],
                **spec,
            },
            "status": status,
        }
        if not assigned:
            del service["status"]
        place = self._pod(name).place
        endpoints = [
            (place, each.lstrip("-"), "dead" if each.startswith("-") else "ready") for each in on
        ]
        self.apply(service, *slices(name, endpoints))

    def apply(self, *objects: dict[str, Any]) -> None:
        self.api.call(lambda server: server.apply(*objects))

    def node(self, name: str, **status: Any) -> dict[str, Any]:
        """The Node object of a machine; `labels`, and what is in its status."""
        labels = {"kubernetes.io/hostname": name, **status.pop("labels", {})}
        place = self.nodes[name].place
        addresses = [{"type": "InternalIP", "address": each} for each in (place.ipv4, place.ipv6)]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {},
            "status": {"addresses": addresses, **status},
        }

    def revive(self) -> None:
        """Have a uproxy run on each node again, with all links."""
        for each in self.nodes.values():
            each.heal()
            each.carrier(True)
            each.thaw()
        ended = [each for each in self.nodes.values() if not each.runs]
        for each in ended:
            each.start(ready=False)
        for each in ended:
            each.wait_ready()
        for each in self.nodes.values():
            self.wait_live(each)

    def wait_live(self, machine: Machine) -> None:
        """Wait until a node takes part again: until its Lease is renewed."""
        before = self._renewals(machine.name)
        wait_for(f"{machine} renews its Lease", lambda: self._renewals(machine.name) != before)

    def _renewals(self, name: str) -> str:
        leases = self.api.call(lambda server: server.store.items(LEASES))
        found = [each.data for (_, lease), each in leases.items() if lease == lease_name(name)]
        return str(found[0]["metadata"]["resourceVersion"]) if found else ""

    def remove(self, *names: str) -> None:
        """Delete Services."""
        for name in names:
            self.api.call(lambda server, name=name: server.delete(SERVICES, name))  # type: ignore[misc]

    def holders(self, address: str) -> set[str]:
        """The nodes that have an address on eth0."""
        return {each.name for each in self.nodes.values() if each.holds(address)}

    def holder(self, *addresses: str, other_than: str = "", patience: float = 30) -> str:
        """Wait until one node holds all of these addresses; returns its name."""
        found: set[str] = set()

        def one() -> bool:
            found.clear()
            found.update(*(self.holders(each) for each in addresses))
            return len(found) == 1 and other_than not in found and self._all(addresses)

        wait_for(f"one node holds {addresses}, other than {other_than!r}", one, patience)
        return found.pop()

    def serve_several(self) -> None:
        """Six Services, so that some node announces addresses of both families."""
        for number in range(6):
            self.serve(f"s{number}", vip(number))

    def announced(self) -> Announced:
        """A node that announces addresses of both families, of those of `serve_several`; each
        address is announced by one node."""
        found: dict[str, list[tuple[str, ...]]] = {}

        def settled() -> bool:
            found.clear()
            held = [{h.split("/")[0] for h in each.held()} for each in self.nodes.values()]
            every = [address for number in range(6) for address in vip(number)]
            if any(sum(address in each for each in held) != 1 for address in every):
                return False
            for name, own in zip(self.nodes, held, strict=True):
                families = [sorted(a for a in own if (":" in a) == six) for six in (False, True)]
                if all(families):
                    found[name] = [tuple(each) for each in families]
            return bool(found)

        wait_for("a node announces addresses of both families", settled, 40)
        name, (ipv4, ipv6) = next(iter(found.items()))
        return Announced(self.nodes[name], (ipv4[0], ipv6[0]))

    def wait_holders(self, address: str, *names: str) -> None:
        """Wait until exactly these nodes hold an address."""
        found: set[str] = set()

        def agree() -> bool:
            found.clear()
            found.update(self.holders(address))
            return found == set(names)

        try:
            wait_for(f"{address} is on {names}", agree, 30)
        except AssertionError as error:
            logs = "\n".join(f"{each}: {each.log}" for each in self.nodes.values())
            raise AssertionError(f"{error}; it is on {sorted(found)}\n{logs}") from None

    def wait_named(self, address: str, *, other_than: str) -> Machine:
        """Wait until exactly that node holds an address which is its holder by the Leases; returns
        it. It may change while one waits: a machine that is busy enough stops a holder for 3 s."""
        found: list[str] = []

        def agree() -> bool:
            found[:] = [self.named(address)]
            return found != [other_than] and self.holders(address) == set(found)

        wait_for(f"{address} is on one node, other than {other_than!r}, that has it", agree, 30)
        return self[found[0]]

    def named(self, address: str) -> str:
        """The node that holds an address by the Leases: that of the highest epoch."""
        leases = self.api.call(lambda server: server.store.items(LEASES))
        epochs = {
            lease.node: lease.holds.get(address, 0)
            for lease in (decode(dict(each.data)) for each in leases.values())
            if isinstance(lease, AnnouncerLease)
        }
        return max(epochs, key=lambda node: epochs[node], default="")

    @contextmanager
    def asking(self, address: str) -> Iterator[Questions]:
        """Ask who has an address, as long as the context is open."""
        questions = Questions(self.client, address)
        try:
            yield questions
        finally:
            questions.close()

    @contextmanager
    def sending(self, address: str, port: int = PORT) -> Iterator[Datagrams]:
        """Send datagrams to an address, as long as the context is open."""
        datagrams = Datagrams(self.client.space, address, port, self.by_pod_address)
        try:
            yield datagrams
        finally:
            datagrams.close()

    def node_of(self, mac: str) -> str:
        return next(each.name for each in self.nodes.values() if each.mac == mac)

    def _all(self, addresses: Sequence[str]) -> bool:
        return all(self.holders(each) for each in addresses)

    def _pod(self, name: str) -> Pod:
        if name not in self.pods:
            number = 100 + len(self.pods)
            place = Place(self.pod_space, f"198.51.100.{number}", f"2001:db8:2::{number:x}")
            self.pod_space.ip(
                f"addr add {place.ipv4}/24 dev br0", f"addr add {place.ipv6}/64 dev br0 nodad"
            )
            self.pods[name] = Pod(name, place, _POD_PORT)
        return self.pods[name]


@contextmanager
def segment(directory: Path, number: int = 3, *, interfaces: int = 1) -> Iterator[Segment]:
    """So many nodes, called n1, n2 and so on, none of which runs a uproxy yet."""
    with ExitStack() as stack:

        def new(role: str) -> Namespace:
            return stack.enter_context(namespace(role))

        lan, management, pods = new("lan"), new("management"), new("pods")
        for each in (lan, management, pods):
            each.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up")
        management.ip(f"addr add {_API}/24 dev br0")
        client = Place(new("client"), "192.0.2.100", "2001:db8:1::64")
        _link(client.space, "eth0", lan, "client", client.ipv4, client.ipv6)
        server = FakeApi(host=_API, port=_API_PORT)
        api = stack.enter_context(in_thread(server, management.inside))
        made = Segment(lan, management, client, pods, api, directory)
        for index in range(1, number + 1):
            name = f"n{index}"
            space = new(name)
            ipv4, ipv6 = f"192.0.2.{10 + index}", f"2001:db8:1::{10 + index:x}"
            _link(space, "eth0", lan, name, ipv4, ipv6)
            if interfaces == 2:
                other = (f"192.0.2.{50 + index}", f"2001:db8:1::{50 + index:x}")
                _link(space, "eth1", lan, f"{name}b", *other)
                # Each interface answers for its own addresses only, as arp_ignore=1 makes it.
                space.sysctl(ipv4__conf__all__arp_ignore=1)
            _link(space, "mgmt0", management, name, f"203.0.113.{10 + index}")
            _link(space, "pod0", pods, name, *_pod_side(index))
            made.nodes[name] = Machine(name, space, index, made)
        made.apply(*(made.node(name) for name in made.nodes))
        made.capture = Capture(lan, {f"{name}{b}": name for name in made.nodes for b in ("", "b")})
        try:
            yield made
        finally:
            for machine in made.nodes.values():
                machine.close()
            made.capture.close()
            for each_pod in made.pods.values():
                each_pod.close()


def _pod_side(number: int) -> tuple[str, str]:
    """The addresses of a node towards pods."""
    return f"198.51.100.{10 + number}", f"2001:db8:2::{10 + number:x}"


def _link(space: Namespace, name: str, into: Namespace, port: str, *addresses: str) -> None:
    """Connect a namespace to the bridge of another one."""
    space.ip(f"link add {name} type veth peer name {port} netns {into.name}")
    into.ip(f"link set {port} master br0 up")
    lengths = {each: "64 nodad" if ":" in each else "24" for each in addresses}
    space.ip(
        f"link set {name} up",
        *(
            f"addr add {each}/{length.split()[0]} dev {name} {length[2:]}"
            for each, length in lengths.items()
        ),
    )


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
