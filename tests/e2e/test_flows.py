"""Flows end in each of the ways that there are, and are found in `uproxy flows` and in the flow
log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.pods import Pod, ask, pod, read_line, visit
from tests.e2e.program import PATIENCE, Program, endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER, with which close(2) resets a connection."""
RTTS = {"clientRtt": 0, "backendRtt": 0}
"""Only flows that are logged have them."""


class World(NamedTuple):
    program: Program
    manifests: Path
    log: Path
    ports: dict[str, int]
    """The NodePort of each Service."""

    def flows(self, name: str, **more: str) -> list[dict[str, Any]]:
        query = "&".join(f"{key}={value}" for key, value in {"service": name, **more}.items())
        code, body = self.program.get(self.program.metrics, f"/api/v1/flows?{query}")
        assert code == 200, body
        answer = json.loads(body)
        assert answer["missing"] == []
        flows: list[dict[str, Any]] = answer["flows"]
        return flows

    def logged(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(each) for each in self.log.read_text().splitlines()]
        return [each for each in found if each["service"] == f"default/{name}"]

    def flow(self, name: str, code: str) -> dict[str, Any]:
        """The flow of a Service that has ended with a code, once there is one; it is in the log,
        too."""

        def ended(flows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [each for each in flows if each["code"] == code]

        wait_for(f"{code} of {name}", lambda: ended(self.flows(name)) and ended(self.logged(name)))
        (found,) = ended(self.flows(name))
        (line,) = ended(self.logged(name))
        assert line | RTTS == found | RTTS
        return found

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        url = f"http://127.0.0.1:{self.program.metrics}"
        command = [sys.executable, "-m", "uproxy.cli", "flows", *words, "--url", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Place(NamedTuple):
    """Where something listens, or does not: all that `endpoints` needs."""

    name: str
    address: str
    port: int


@contextmanager
def silent() -> Iterator[Place]:
    """A TCP port with a full queue, of which the kernel drops every SYN."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind((HERE, 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
        yield Place("silent", *address)


@contextmanager
def resetting() -> Iterator[Place]:
    """Resets each connection once it has received something."""
    with socket.create_server((HERE, 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    sock.recv(1)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.close()

        threading.Thread(target=run, daemon=True).start()
        yield Place("resetting", *listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def mute() -> Iterator[Place]:
    """A UDP socket that answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, 0))
        yield Place("mute", *sock.getsockname())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    manifests = tmp_path_factory.mktemp("flows") / "manifests"
    manifests.mkdir()
    log = manifests.parent / "flows.log"
    ports: dict[str, int] = {}
    with ExitStack() as stack:
        web = stack.enter_context(pod("web-0"))
        closed = Place("closed", HERE, free_port())

        def add(name: str, to: Pod | Place, protocol: str = "TCP", **spec: Any) -> None:
            ports[name] = free_port()
            port = {"name": "main", "port": 80, "nodePort": ports[name], "protocol": protocol}
            slices = endpoints(name, [to], protocol=protocol)  # type: ignore[list-item]
            target = {"kind": "Pod", "name": f"pod-of-{name}", "namespace": "default"}
            slices[0]["endpoints"][0]["targetRef"] = target
            write(manifests, f"{name}.yaml", service(name, ports=[port], **spec), *slices)

        for name in ("web", "client-resets", "idle", "removed", "shown", "followed", "later"):
            add(name, web)
        add("refused", closed)
        add("backend-resets", stack.enter_context(resetting()))
        add("silent", stack.enter_context(silent()))
        ranges = ["192.0.2.0/24"]
        add("not-allowed", web, type="LoadBalancer", loadBalancerSourceRanges=ranges)
        add("answered", web, "UDP")
        add("udp-refused", closed, "UDP")
        add("mute", stack.enter_context(mute()), "UDP")
        options = ["--nodeport-addresses", "localhost", "--flow-log", str(log)]
        options += ["--tcp-idle-timeout", "3s", "--udp-timeout", "1s", "--drain-timeout", "100ms"]
        options += ["--strict-source-ranges"]
        running = stack.enter_context(program(manifests, *options))
        yield World(running, manifests, log, ports)


def connect(world: World, name: str) -> socket.socket:
    return socket.create_connection((HERE, world.ports[name]), PATIENCE)


def knock(port: int) -> None:
    """Connect, and wait for the end, which may come while this connects."""
    with contextlib.suppress(ConnectionError), socket.create_connection((HERE, port)) as sock:
        read_to_the_end(sock)


def read_to_the_end(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while sock.recv(100):
            pass


def test_a_good_end(world: World) -> None:
    before = time.time()
    assert visit(HERE, world.ports["web"]) == "web-0"
    found = world.flow("web", "--")
    assert (found["bad"], found["reason"]) == (False, "")
    assert (found["pod"], found["node"]) == ("pod-of-web", "here")
    assert (found["clientBytes"], found["backendBytes"]) == (0, len("web-0\n"))
    assert (found["client"], found["frontend"]) == (HERE, f"{HERE}:{world.ports['web']}")
    assert (found["attempts"], found["protocol"]) == (1, "TCP")
    assert 0 < found["dialTime"] < found["duration"] + 1
    assert time.strftime("%Y-%m-%dT%H", time.gmtime(before)) in found["start"]


def test_the_client_resets(world: World) -> None:
    with connect(world, "client-resets") as sock:
        assert read_line(sock) == "web-0"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    found = world.flow("client-resets", "CD")
    assert found["reason"] == "ECONNRESET"


def test_the_backend_resets(world: World) -> None:
    with connect(world, "backend-resets") as sock:
        sock.send(b"x")
        read_to_the_end(sock)
    found = world.flow("backend-resets", "SD")
    assert (found["reason"], found["pod"]) == ("ECONNRESET", "pod-of-backend-resets")


def test_nothing_listens(world: World) -> None:
    knock(world.ports["refused"])
    found = world.flow("refused", "SC")
    assert (found["reason"], found["pod"]) == ("ECONNREFUSED", "pod-of-refused")
    assert found["attempts"] >= 1


def test_nothing_answers(world: World) -> None:
    knock(world.ports["silent"])
    found = world.flow("silent", "SC")
    assert found["reason"] == "ETIMEDOUT"


def test_nothing_is_transferred_for_too_long(world: World) -> None:
    with connect(world, "idle") as sock:
        assert read_line(sock) == "web-0"
        read_to_the_end(sock)
    found = world.flow("idle", "ID")
    assert found["reason"] == "idle"


def test_the_service_is_removed(world: World) -> None:
    with connect(world, "removed") as sock:
        assert read_line(sock) == "web-0"
        (world.manifests / "removed.yaml").unlink()
        read_to_the_end(sock)
    found = world.flow("removed", "KD")
    assert found["pod"] == "pod-of-removed", "which is gone"


def test_the_client_is_not_allowed(world: World) -> None:
    knock(world.ports["not-allowed"])
    found = world.flow("not-allowed", "PC")
    assert (found["reason"], found["backend"], found["pod"]) == ("source_refused", None, None)


def test_a_question_over_udp(world: World) -> None:
    assert ask(HERE, world.ports["answered"]) == "web-0 hello"
    found = world.flow("answered", "--")
    assert (found["protocol"], found["pod"]) == ("UDP", "pod-of-answered")
    assert (found["clientBytes"], found["backendBytes"]) == (5, len("web-0 hello"))


def send(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((HERE, port))
        sock.send(b"hello")


def test_nothing_listens_for_udp(world: World) -> None:
    send(world.ports["udp-refused"])
    found = world.flow("udp-refused", "SC")
    assert found["reason"] == "ECONNREFUSED"


def test_a_question_over_udp_without_answer(world: World) -> None:
    send(world.ports["mute"])
    assert not world.flow("mute", "IC")["bad"], "syslog and statsd have no answers"


def test_the_command(world: World) -> None:
    assert visit(HERE, world.ports["shown"]) == "web-0"
    world.flow("shown", "--")
    table = world.call("svc/shown")
    assert table.returncode == 0
    assert "pod-of-shown" in table.stdout.splitlines()[1]
    document = json.loads(world.call("--service", "shown", "-o", "json").stdout)
    assert document["flows"] == world.flows("shown")
    assert world.call("shown", "--bad").stdout == "No bad flow of shown has ended yet.\n"
    nothing = world.call("-n", "prod")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "prod" in nothing.stderr


def test_following(world: World) -> None:
    url = f"http://127.0.0.1:{world.program.metrics}"
    words = ["flows", "followed", "-f", "-o", "json", "--url", url]
    visit(HERE, world.ports["followed"])
    with subprocess.Popen(
        [sys.executable, "-m", "uproxy.cli", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        visit(HERE, world.ports["followed"])
        # Those that ended before come first.
        while (flow := json.loads(process.stdout.readline()))["start"] <= first["start"]:
            pass
        assert flow["service"] == "default/followed"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_the_log_is_opened_again_on_sighup(world: World) -> None:
    moved = world.log.with_suffix(".1")
    world.log.rename(moved)
    world.program.process.send_signal(signal.SIGHUP)
    wait_for("a new file", world.log.exists)
    assert world.program.process.poll() is None
    visit(HERE, world.ports["later"])
    wait_for("a line in it", lambda: world.logged("later"))
    assert oct(world.log.stat().st_mode & 0o777) in ("0o640", "0o600")


def test_a_worker_that_hangs(world: World) -> None:
    """It is named, and the flows of the other one are shown."""
    pid = world.program.worker_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = world.call("--limit", "3")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert found.returncode == 0
    assert "uproxy: worker 0 has not answered within 2 s" in found.stderr


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "flows.log"
    with program(tmp_path, "--flow-log", str(path), ready=False) as running:
        assert running.process.wait(PATIENCE) == 2
        last = running.log.splitlines()[-1]
        assert last == f"uproxy: --flow-log: {path}: no such file or directory"


def test_sampling_keeps_every_bad_end(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    good, bad = free_port(), free_port()
    with pod("web-0") as web:
        for name, port, to in (("good", good, web), ("bad", bad, Place("x", HERE, free_port()))):
            ports = [{"name": "main", "port": 80, "nodePort": port}]
            slices = endpoints(name, [to])  # type: ignore[list-item]
            write(manifests, f"{name}.yaml", service(name, ports=ports), *slices)
        options = ["--nodeport-addresses", "localhost", "--flow-log", "-"]
        with program(manifests, *options, "--flow-log-every", "5", workers=1) as running:
            for _ in range(20):
                visit(HERE, good)
                knock(bad)
            assert running.stop() == 0
            lines = [each for each in running.log.splitlines() if each.startswith("{")]
    codes = [json.loads(each)["code"] for each in lines]
    assert codes.count("SC") == 20
    assert 4 <= codes.count("--") <= 8
