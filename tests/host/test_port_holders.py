"""Who has a port, as /proc says."""

from __future__ import annotations

import getpass
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from uproxy.core.protocols import TCP, UDP
from uproxy.host.port_holders import Holder, Port, find_port_holders, service_proxy_at

LISTENS = """
import socket, sys
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def listening(*words: str) -> Iterator[tuple[Port, int]]:
    """Another process that has a port of both protocols, and its number."""
    port = free_port()
    command = [sys.executable, "-c", LISTENS, str(port), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        yield Port(TCP, port), process.pid
        process.stdin.close()


def test_another_process() -> None:
    with listening() as (port, process):
        name = Path(f"/proc/{process}/comm").read_text().strip()
        holder = Holder(name, process, getpass.getuser())
        both = [port, Port(UDP, port.number)]
        assert find_port_holders(both) == dict.fromkeys(both, holder)


def test_a_uproxy_that_has_paused_its_listener() -> None:
    """No table of the kernel shows the socket. If another uproxy runs, it is that one's."""
    with listening("uproxy.cli", "run") as (_, process):
        (holder,) = find_port_holders([Port(TCP, free_port())]).values()
        assert holder.program == "uproxy"
        assert holder.process
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        assert "uproxy.cli" in words, "it would be this one if there were no other"


def test_a_uproxy_in_another_network_has_no_port_here(tmp_path: Path) -> None:
    """As in the nodes of kind, which the machine sees. One that cannot be read may be here."""
    for name, network in (("self", "net:[1]"), ("7", "net:[2]"), ("8", "net:[1]")):
        (tmp_path / name / "ns").mkdir(parents=True)
        (tmp_path / name / "ns" / "net").symlink_to(network)
        (tmp_path / name / "cmdline").write_text("python\0-m\0uproxy.cli\0run\0")
    port = Port(TCP, 80)
    assert find_port_holders([port], tmp_path) == {port: Holder("uproxy", 8)}
    (tmp_path / "8" / "ns" / "net").unlink()
    assert find_port_holders([port], tmp_path) == {port: Holder("uproxy", 8)}
    (tmp_path / "8" / "cmdline").unlink()
    assert find_port_holders([port], tmp_path) == {port: Holder()}


def test_another_uproxy() -> None:
    with listening("uproxy.cli", "run") as (port, process):
        assert find_port_holders([port])[port] == Holder("uproxy", process, getpass.getuser())


def test_a_worker_stands_for_its_uproxy_and_our_own_for_nobody() -> None:
    """Here this process is the parent, as it is that of its workers."""
    with listening("uproxy.dataplane.__main__") as (port, _):
        assert find_port_holders([port]) == {port: Holder(user=getpass.getuser())}
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = Port(TCP, ours.getsockname()[1])
        assert find_port_holders([port])[port].process == 0


def test_processes_that_cannot_be_looked_into(tmp_path: Path) -> None:
    """What is left is the user, or the number of one who has no name here."""
    (tmp_path / "net").mkdir()
    row = "  0: 0100007F:{:04X} 00000000:0000 {} 00000000:00000000 00:00000000 00000000 {} 0 {} 1\n"
    table = "heading\n" + row.format(80, "0A", 0, 11) + row.format(81, "0A", 4_000_000, 12)
    (tmp_path / "net" / "tcp").write_text(table + row.format(82, "01", 0, 13))
    (tmp_path / "7").mkdir()
    ports = [Port(TCP, number) for number in (80, 81, 82)]
    assert find_port_holders(ports, tmp_path) == {
        Port(TCP, 80): Holder(user="root"),
        Port(TCP, 81): Holder(user="4000000"),
        Port(TCP, 82): Holder(),
    }


@pytest.mark.parametrize(
    ("answer", "program"), [(b"userspace", "uproxy"), (b"nftables", "kube-proxy"), (b"?", "")]
)
def test_what_answers_at_a_metrics_address(answer: bytes, program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, _answering(server, answer):
        assert service_proxy_at("127.0.0.1", server.getsockname()[1]) == program


def test_nothing_answers() -> None:
    assert service_proxy_at("127.0.0.1", free_port()) == ""


@contextmanager
def _answering(server: socket.socket, answer: bytes) -> Iterator[None]:
    def serve() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1000)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
            client.sendall(head.encode() + answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()
