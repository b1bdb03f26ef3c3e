"""uproxy on a node of a small cluster, whose pods and clients call Services.

The network is the one of tests/netns/kit.py: namespaces for two nodes, for pods behind a bridge of
each, and for a client in the LAN. Each uproxy has such a network of its own with the same addresses
and backends, so the rules of one do not slow down the other.

The figures are worth something only if backends see the addresses that they are meant to see. So
the kernel counts at each backend, by source address, the connections and datagrams that arrive.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.wire import backends, manifests
from bench.wire.peers import Setup, Start, Subject
from bench.wire.places import Place, free_place
from bench.wire.processes import Running, Unavailable, find_program, output_of
from bench.wire.uproxy_peer import NODE, serving
from tests.netns import kit

HTTP, UDP = 8080, 8081
"""Ports of the backends."""
_PATIENCE = 15.0
"""Seconds until a backend must see the address that it is meant to see."""
_TABLE = "uproxy_bench"
_NODE, _OTHER = "node", "other"
"""Counters beside those of callers: for addresses of uproxy's node, and for all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Which client calls a Service, and where its backend is."""

    name: str
    title: str
    caller: str
    """"pod": a pod of uproxy's node, which calls ClusterIPs; "outside": a client in the LAN, which
    calls NodePorts of policy Local."""
    services: Mapping[str, Place]
    """The places of its two Services, "http" and "udp", as the caller reaches them."""


CALLS: Final = (
    Call(
        name="remote",
        title="a pod calls a pod on another node",
        caller="pod",
        services={"http": Place("203.0.113.10", 80), "udp": Place("203.0.113.11", 80)},
    ),
    Call(
        name="bridge",
        title="a pod calls a pod on the same bridge",
        caller="pod",
        services={"http": Place("203.0.113.20", 80), "udp": Place("203.0.113.21", 80)},
    ),
    Call(
        name="outside",
        title="a client from outside calls a NodePort of policy Local",
        caller="outside",
        services={"http": Place("192.0.2.1", 30080), "udp": Place("192.0.2.1", 30081)},
    ),
)
SOURCES: Final = {
    "pod": [f"198.51.100.{64 + each}" for each in range(1, 51)],
    "outside": [f"192.0.2.{128 + each}" for each in range(1, 51)],
}
"""Addresses that callers have beside their own, one for each UDP flow."""


def require_namespaces() -> None:
    """Raises Unavailable if there can be no cluster here."""
    reason = kit.why_not()
    if reason:
        raise Unavailable(reason)
    find_program("nft", "nftables")


def uproxy_in_cluster(preserve_client_ip: str) -> Start:
    """`uproxy run` with that value of --preserve-client-ip."""

    @contextmanager
    def start(setup: Setup) -> Iterator[Subject]:
        require_namespaces()
        with ExitStack() as stack:
            cluster = Cluster(_network(stack))
            process = cluster.start(setup, preserve_client_ip, stack)
            yield cluster.subject(process, preserved=preserve_client_ip != "never")

    return start


def _network(stack: ExitStack) -> kit.World:
    try:
        return stack.enter_context(kit.world(local=2, remote=1))
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"no network for a cluster: {error}") from None


class Cluster:
    """The network, and what is the same in it whether addresses are preserved or not."""

    def __init__(self, net: kit.World) -> None:
        self.net = net
        self._callers = {"pod": net.local[0], "outside": net.client}
        self._backends = {
            "remote": net.remote[0],
            "bridge": net.local[1],
            "outside": net.local[1],
        }
        self._given_up: list[Call] = []
        """Those whose backends have not seen the expected address in time. The next round does not
        wait for that again."""
        for caller, place in self._callers.items():
            length = 24 if caller == "outside" else 25
            place.space.ip(*(f"addr add {each}/{length} dev eth0" for each in SOURCES[caller]))

    def start(self, setup: Setup, preserve_client_ip: str, stack: ExitStack) -> Running:
        """Start all programs, and return uproxy."""
        for place in (self.net.local[1], self.net.remote[0]):
            self._start_backends(place, setup.directory, stack)
        objects = setup.directory / "manifests"
        objects.mkdir()
        manifests.write(objects / "measured.json", self._objects())
        options = ["--preserve-client-ip", preserve_client_ip, "--cluster-cidr", kit.PODS[0]]
        space = self.net.node.space
        with space.inside():
            return stack.enter_context(
                serving(setup, objects, free_place(), *options, wrapper=space.command())
            )

    def _start_backends(self, place: kit.Place, directory: Path, stack: ExitStack) -> None:
        """The servers of one pod, and the counters of those that call them."""
        files = directory / place.space.role
        files.mkdir()
        rules = files / "rules"
        rules.write_text(self._counting_rules())
        with place.space.inside():
            output_of([find_program("nft", "nftables"), "-f", str(rules)])
            stack.enter_context(backends.http(files, Place(place.ipv4, HTTP)))
            stack.enter_context(backends.udp_echo(files, Place(place.ipv4, UDP)))

    def subject(self, process: Running, *, preserved: bool) -> Subject:
        """`preserved`: whether backends are meant to see the callers' addresses."""
        return Subject(
            places={},
            process=process,
            calls={
                call.name: partial(self._called, call, process, call.caller if preserved else _NODE)
                for call in CALLS
            },
        )

    @contextmanager
    def _called(self, call: Call, process: Running, expected: str) -> Iterator[Subject]:
        """Be the caller for a while. Raises Unavailable if the backend sees another address than
        the expected one."""
        backend = self._backends[call.name].space
        with self._callers[call.caller].space.inside():
            self._wait_until_seen(expected, call)
            before = _seen(backend)
            yield Subject(
                places=call.services,
                process=process,
                sources=lambda flows: SOURCES[call.caller][:flows],
            )
        check_seen(expected, _seen(backend) - before)

    def _wait_until_seen(self, expected: str, call: Call) -> None:
        """Until a connection shows that address to the backend: workers learn after they are ready
        whose addresses they may preserve."""
        backend = self._backends[call.name].space
        deadline = time.monotonic() + (0 if call in self._given_up else _PATIENCE)
        while True:
            before = _seen(backend)
            _connect_once(call.services["http"])
            seen = _seen(backend) - before
            if set(seen) == {expected}:
                return
            if time.monotonic() > deadline:
                self._given_up.append(call)
                check_seen(expected, seen)
            time.sleep(0.1)

    def _counting_rules(self) -> str:
        """The text for nft -f. A connection is counted by its first packet."""
        bridge = self.net.local[0].ipv4.rpartition(".")[0] + ".1"
        sources = {name: [each.ipv4, *SOURCES[name]] for name, each in self._callers.items()}
        sources[_NODE] = [self.net.node.ipv4, self.net.second[0], bridge]
        lines = [f"table ip {_TABLE} {{"]
        lines += [f"  counter {name} {{ }}" for name in (*sources, _OTHER)]
        lines += ["  chain callers {"]
        for name, addresses in sources.items():
            lines += [f"    ip saddr {{ {', '.join(addresses)} }} counter name {name} return"]
        lines += [f"    counter name {_OTHER}", "  }", "  chain input {"]
        lines += ["    type filter hook input priority 0;"]
        lines += [f"    iifname eth0 tcp dport {HTTP} tcp flags & (syn | ack) == syn jump callers"]
        lines += [f"    iifname eth0 udp dport {UDP} jump callers", "  }", "}"]
        return "\n".join(lines) + "\n"

    def _objects(self) -> list[dict[str, Any]]:
        objects: list[dict[str, Any]] = []
        for call in CALLS:
            node = "another" if call.name == "remote" else NODE
            for kind, protocol, port in (("http", "TCP", HTTP), ("udp", "UDP", UDP)):
                name, place = f"{call.name}-{kind}", call.services[kind]
                service = manifests.service(name, place, protocol)
                if call.caller == "outside":
                    spec = service["spec"]
                    spec |= {"type": "NodePort", "externalTrafficPolicy": "Local"}
                    spec["clusterIP"] = f"203.0.113.{100 + len(objects)}"
                    spec["ports"][0] |= {"port": 80, "nodePort": place.port}
                backend = Place(self._backends[call.name].ipv4, port)
                objects += [service, manifests.endpoint_slice(name, [backend], protocol, node)]
        return objects


def _connect_once(http: Place) -> None:
    try:
        with socket.create_connection(http, timeout=5) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answered = sock.recv(1)
    except OSError as error:
        raise Unavailable(f"{http} does not answer: {error}") from None
    if not answered:
        raise Unavailable(f"{http} closes connections without an answer")


def _seen(backend: kit.Namespace) -> Counter[str]:
    """How many connections and datagrams came from which kind of address so far."""
    nft = find_program("nft", "nftables")
    with backend.inside():
        listing = json.loads(output_of([nft, "-j", "list", "counters", "table", "ip", _TABLE]))
    found = (each["counter"] for each in listing["nftables"] if "counter" in each)
    return Counter({each["name"]: each["packets"] for each in found})


def check_seen(expected: str, seen: Counter[str]) -> None:
    """Raises Unavailable unless all that a backend has seen is the expected kind of address."""
    if set(seen) != {expected}:
        parts = ", ".join(f"{count} from {name}" for name, count in seen.items()) or "nothing"
        raise Unavailable(f"backends must see addresses of {expected} only, but saw {parts}")
