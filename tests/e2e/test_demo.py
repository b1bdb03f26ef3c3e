"""The real `uproxy demo`, with real clients: everything that it shows works."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.program import PATIENCE, wait_for
from uproxy.core.route import Frontend
from uproxy.demo import backends, cluster
from uproxy.sources.manifests.file import read_manifest

HERE = "127.0.0.1"

_LOWEST, _HIGHEST = -1023, 767
"""Ports of the demo stay below ephemeral ports, so that no client takes one."""
_next = itertools.count(os.getpid() * 97, 11)


class Demo:
    """A running demo."""

    def __init__(self, process: subprocess.Popen[str], offset: int) -> None:
        self.process = process
        self.offset = offset
        self.text = ""

    def url(self, address: str, port: int, path: str = "/") -> str:
        return f"http://{address}:{port + self.offset}{path}"

    def visit(self, address: str, port: int) -> str:
        """The pod that answers."""
        code, body = get(self.url(address, port))
        assert code == 200
        greeting, _, pod = body.strip().rpartition(" ")
        assert greeting == "You've hit"
        return pod

    def read_until(self, line: str) -> None:
        """Read the output up to a line that begins like this."""
        assert self.process.stdout is not None
        for each in self.process.stdout:
            self.text += each
            if each.startswith(line):
                return
        raise AssertionError(f"no line {line!r} in {self.text}{self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.read().decode()


def frontends(offset: int, directory: Path) -> list[Frontend]:
    """Everything that a demo with this offset binds."""
    path = cluster.write(directory, offset)
    reading = read_manifest(str(path), path.read_bytes())
    objects = [located.obj for located in reading.objects.values()]
    wanted = [frontend for frontend, _ in cluster.frontends(objects)]
    wanted += [Frontend(each.protocol, each.address, each.port) for each in backends.pods(objects)]
    return wanted + [Frontend("TCP", HERE, port + offset) for port in (10249, 10256)]


def free_offset(directory: Path) -> int:
    """An offset for which every port of the demo is free; each call gives another one."""
    while True:
        offset = _LOWEST + next(_next) % (_HIGHEST - _LOWEST)
        if is_free(offset, directory):
            return offset


def is_free(offset: int, directory: Path) -> bool:
    return cluster.first_taken([(each, "") for each in frontends(offset, directory)]) is None


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "uproxy.cli", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Demo]:
    """A demo that has printed its table."""
    offset = free_offset(directory)
    process = start("--port-offset", str(offset), *options)
    with process:
        try:
            demo = Demo(process, offset)
            demo.read_until("The demo ends after" if "--exit-after" in options else "Ctrl-C")
            yield demo
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for all tests that do not change it."""
    with running(tmp_path_factory.mktemp("demo")) as one:
        yield one


def test_a_node_port_rotates_over_its_pods(demo: Demo) -> None:
    pods = {demo.visit(HERE, 30123) for _ in range(12)}
    assert len(pods) == 3
    assert {pod.rpartition("-")[0] for pod in pods} == {"kubia"}


def test_an_external_ip(demo: Demo) -> None:
    pods = {demo.visit("127.0.0.2", 8080) for _ in range(12)}
    assert {pod.rpartition("-")[0] for pod in pods} == {"sample"}
    assert len(pods) == 2


def test_a_load_balancer_ip(demo: Demo) -> None:
    pods = {demo.visit("127.0.0.3", 8081) for _ in range(12)}
    assert {pod.rpartition("-")[0] for pod in pods} == {"svc1"}
    assert len(pods) == 2


def test_an_address_of_a_pool(demo: Demo) -> None:
    found = re.search(r"svc-pool .* assigned it (127\.0\.0\.\d+), from the pool demo\.", demo.text)
    assert found is not None
    assert 64 <= int(found[1].rpartition(".")[2]) < 80
    pods = {demo.visit(found[1], 8083) for _ in range(12)}
    assert {pod.rpartition("-")[0] for pod in pods} == {"svc-pool"}
    assert len(pods) == 2


def test_session_affinity(demo: Demo) -> None:
    pods = {demo.visit(HERE, 30124) for _ in range(12)}
    assert len(pods) == 1
    assert pods.pop().startswith("sticky-")


def test_a_client_here_counts_as_the_node_with_policy_local(demo: Demo) -> None:
    assert {demo.visit(HERE, 30125) for _ in range(12)} == {"svc-local-here", "svc-local-elsewhere"}
    assert "counts as the node itself and may reach both" in demo.text


def test_health_check_node_port(demo: Demo) -> None:
    code, body = get(demo.url(HERE, 32000, "/healthz"))
    assert code == 200
    assert re.search(r'"localEndpoints": 1\b', body)


def test_cluster_ips_are_served_too(demo: Demo) -> None:
    assert demo.visit("127.96.0.10", 8080).startswith("kubia-")


DNS_ID = b"\x12\x34"
QUERY = (
    DNS_ID
    + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"  # Recursion desired, one question.
    + b"\x03pod\x00\x00\x10\x00\x01"  # "pod", TXT, IN.
)


def txt(answer: bytes) -> str:
    """The text of a DNS answer with one TXT record."""
    assert answer[:2] == DNS_ID
    assert answer[2] & 0x80, "is an answer"
    assert answer[3] & 0x0F == 0, "without error"
    assert answer[4:8] == b"\x00\x01\x00\x01", "one question, one answer"
    record = answer[len(QUERY) :]
    assert record[:6] == b"\xc0\x0c\x00\x10\x00\x01"
    assert record[12] + 13 == len(record)
    return record[13:].decode()


def test_dns_over_udp(demo: Demo) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((HERE, 30053 + demo.offset))
        sock.send(QUERY)
        assert txt(sock.recv(4096)).startswith("coredns-")


def test_dns_over_tcp_on_the_same_port(demo: Demo) -> None:
    with socket.create_connection((HERE, 30053 + demo.offset), 10) as sock:
        sock.sendall(len(QUERY).to_bytes(2, "big") + QUERY)
        with sock.makefile("rb") as stream:
            size = int.from_bytes(stream.read(2), "big")
            assert txt(stream.read(size)).startswith("coredns-")


def test_the_table_names_everything_that_is_served(demo: Demo) -> None:
    lines = [line.split() for line in demo.text.splitlines()]
    assert lines[0] == ["SERVICE", "KIND", "FRONTEND", "STATE"]
    offset = demo.offset
    for row in (
        f"default/kubia-nodeport NodePort 127.0.0.1:{30123 + offset}/TCP 3 pods",
        f"default/sample-externalip ExternalIP 127.0.0.2:{8080 + offset}/TCP 2 pods",
        f"default/svc1 LoadBalancerIP 127.0.0.3:{8081 + offset}/TCP 2 pods",
        f"default/svc-pool LoadBalancerIP 127.0.0.65:{8083 + offset}/TCP 2 pods",
        f"default/svc-local LoadBalancerIP 127.0.0.64:{8082 + offset}/TCP 2 pods",
        f"default/sticky NodePort 127.0.0.1:{30124 + offset}/TCP 3 pods",
        f"default/svc-local NodePort 127.0.0.1:{30125 + offset}/TCP 2 pods",
        f"default/svc-local health check 127.0.0.1:{32000 + offset}/TCP 1 local pod",
        f"kube-system/kube-dns NodePort 127.0.0.1:{30053 + offset}/TCP 2 pods",
        f"kube-system/kube-dns NodePort 127.0.0.1:{30053 + offset}/UDP 2 pods",
    ):
        assert row.split() in lines


def test_it_says_why_a_service_is_not_served(demo: Demo) -> None:
    assert "default/external is not served: type is ExternalName; " in demo.text
    assert "default/headless is not served: it is headless (clusterIP None); " in demo.text


def test_every_row_has_a_command_that_works(demo: Demo) -> None:
    commands = re.findall(r"^  (curl|dig) (.*?)  +# (.*)$", demo.text, re.MULTILINE)
    assert len(commands) == 10
    for program, words, _ in commands:
        if program == "curl":
            url = words.rpartition(" ")[2]
            assert get(url)[0] == 200
        else:
            assert f"-p {30053 + demo.offset} " in words


def test_no_log_lines_disturb_the_table(demo: Demo) -> None:
    assert demo.text.startswith("SERVICE ")
    assert max(map(len, demo.text.splitlines())) <= 110


def test_the_suggested_status_explain_and_page_work(demo: Demo) -> None:
    found = re.search(r"^Look:  .*uproxy.* status --url (\S+)$", demo.text, re.MULTILINE)
    assert found is not None
    assert get(f"{found[1]}/")[0] == 200
    code, body = get(f"{found[1]}/api/v1/routes")
    assert code == 200
    assert '"default/kubia-nodeport"' in body
    [pool] = json.loads(body)["loadBalancer"]["pools"]
    assert pool["counts"]["IPv4"] == {
        "total": 16,
        "used": 2,
        "reserved": 0,
        "drained": 0,
        "free": 14,
    }


def test_exit_after(tmp_path: Path) -> None:
    started = time.monotonic()
    with running(tmp_path, "--exit-after", "1s") as demo:
        assert demo.process.wait(PATIENCE) == 0
        assert time.monotonic() - started > 1
        assert "Traceback" not in demo.errors()
        assert "The demo ends after 1 s" in demo.text
        assert is_free(demo.offset, tmp_path), "nothing is left behind"


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as demo:
        manifests = re.search(r"^Edit:  (\S+)", demo.text, re.MULTILINE)
        assert manifests is not None
        assert Path(manifests[1]).exists()
        demo.process.send_signal(number)
        assert demo.process.wait(PATIENCE) == 0
        assert "Traceback" not in demo.errors()
        assert not Path(manifests[1]).exists(), "no temporary files are left"


def test_edited_manifests_take_effect(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        found = re.search(r"^Edit:  (\S+)", demo.text, re.MULTILINE)
        assert found is not None
        manifest = Path(found[1])
        manifest.write_text(manifest.read_text().replace("[127.97.0.31]", "[127.97.0.41]"))

        def changed() -> bool:
            return "sticky" in demo.visit("127.0.0.3", 8081)

        wait_for("the new pod", changed)


@pytest.mark.parametrize(
    ("protocol", "address", "port", "purpose"),
    [
        pytest.param("TCP", HERE, 30123, "default/kubia-nodeport", id="NodePort"),
        pytest.param("UDP", HERE, 30053, "kube-system/kube-dns", id="UDP"),
        pytest.param("TCP", HERE, 32000, "the health check of default/svc-local", id="health"),
        pytest.param("TCP", "127.0.0.65", 8083, "default/svc-pool", id="pool"),
        pytest.param("TCP", HERE, 10249, "status and metrics", id="status"),
        pytest.param("TCP", "127.97.0.12", 8080, "", id="pod"),
    ],
)
def test_a_port_that_is_taken(
    tmp_path: Path, protocol: str, address: str, port: int, purpose: str
) -> None:
    offset = free_offset(tmp_path)
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        if protocol == "TCP":  # A test before this one may have left connections in TIME_WAIT.
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((address, port + offset))
        if protocol == "TCP":
            other.listen()
        process = start("--port-offset", str(offset))
        stdout, stderr = process.communicate(timeout=PATIENCE)
    for_what = f", for {purpose}," if purpose else ""
    assert stderr == (
        f"uproxy: {protocol} port {port + offset} on {address}{for_what} is taken; "
        "choose other ports, for example with: uproxy demo --port-offset 1000\n"
    )
    assert stdout == ""
    assert process.returncode == 2
