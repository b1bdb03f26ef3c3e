"""The servers behind the proxies, which are the same for every peer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.wire.loads import DNS_NAME
from bench.wire.places import Place, Service, free_place
from bench.wire.processes import Unavailable, find_program, running

BODY = 10_000_000
"""Bytes of the body behind /big."""

_NGINX = """\
daemon off;
user {user};
worker_processes {workers};
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/nginx.log crit;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}; proxy_temp_path {directory};
  fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{
    listen {place} backlog=4096;
    location = / {{ default_type text/plain; return 200 "ok\\n"; }}
    location = /big {{ root {directory}; }}
  }}
}}
"""


@contextmanager
def backends(names: Sequence[str], directory: Path) -> Iterator[tuple[Service, ...]]:
    """Start the named backends; a line says which of them cannot be started and are left out."""
    with ExitStack() as stack:
        services = []
        for name in names:
            try:
                services.append(stack.enter_context(_STARTS[name](directory)))
            except Unavailable as reason:
                print(f"no {name} backend: {reason}")
        yield tuple(services)


@contextmanager
def http(directory: Path, place: Place) -> Iterator[None]:
    """nginx, with its files in a directory of its own."""
    text = _NGINX.format(
        user="root" if os.geteuid() == 0 else "nobody",
        workers=min(4, len(os.sched_getaffinity(0))),
        files=20000,
        connections=10000,
        directory=directory,
        place=place,
    )
    config = directory / "http.conf"
    config.write_text(text)
    command = [find_program("nginx", "nginx-light"), "-c", str(config), "-p", str(directory)]
    with running(command, directory / "http.log") as nginx:
        nginx.wait_until_accepting([place])
        yield


@contextmanager
def udp_echo(directory: Path, place: Place) -> Iterator[None]:
    """The echo of udp_load.py."""
    command = [sys.executable, "-m", "bench.wire.udp_load", place.host, str(place.port)]
    with running(command, directory / "udp.log"):
        yield


@contextmanager
def _http(directory: Path) -> Iterator[Service]:
    place = free_place()
    with (directory / "big").open("wb") as file:
        file.write(os.urandom(BODY))
    with http(directory, place):
        yield Service("http", "TCP", place)


@contextmanager
def _udp(directory: Path) -> Iterator[Service]:
    place = free_place()
    with udp_echo(directory, place):
        yield Service("udp", "UDP", place)


@contextmanager
def _once(directory: Path) -> Iterator[Service]:
    with _udp(directory) as udp:
        yield Service("once", "UDP", udp.backend)


@contextmanager
def _trains(directory: Path) -> Iterator[Service]:
    place = free_place()
    command = [sys.executable, "-m", "bench.wire.udp_trains", place.host, str(place.port)]
    with running(command, directory / "trains.log"):
        yield Service("trains", "UDP", place)


@contextmanager
def _dns(directory: Path) -> Iterator[Service]:
    place = free_place()
    command = [find_program("dnsmasq", "dnsmasq-base"), "--keep-in-foreground", "--no-resolv"]
    command += ["--no-hosts", "--conf-file=/dev/null", "--pid-file=", f"--port={place.port}"]
    command += [f"--listen-address={place.host}", "--bind-interfaces", "--log-facility=-"]
    command += [f"--address=/{DNS_NAME}/127.0.0.1"]
    command += ["--user=root"] if os.geteuid() == 0 else []
    (directory / "questions").write_text(f"{DNS_NAME} A\n")
    with running(command, directory / "dns.log") as dnsmasq:
        dnsmasq.wait_until_accepting([place])
        yield Service("dns", "UDP", place)


@contextmanager
def _stream(directory: Path) -> Iterator[Service]:
    place = free_place()
    command = [find_program("iperf3", "iperf3"), "-s", "-p", str(place.port), "-B", place.host]
    with running(command, directory / "stream.log") as iperf:
        iperf.wait_until_accepting([place])
        yield Service("stream", "TCP", place)


@contextmanager
def _idle(directory: Path) -> Iterator[Service]:
    place = free_place()
    command = [sys.executable, "-m", "bench.wire.idle", place.host, str(place.port)]
    with running(command, directory / "idle.log") as holder:
        holder.wait_until_accepting([place])
        yield Service("idle", "TCP", place)


_STARTS = {
    "http": _http,
    "udp": _udp,
    "once": _once,
    "trains": _trains,
    "dns": _dns,
    "stream": _stream,
    "idle": _idle,
}
