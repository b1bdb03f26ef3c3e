"""The configuration file of a real `uproxy run`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pods import pod, read_line
from tests.e2e.program import PATIENCE, Program, endpoints, program, service, wait_for, write
from tests.ports import free_port

KUBE_PROXY = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
OWN = "apiVersion: uproxy.dev/v1alpha1\nkind: UproxyConfiguration\n"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """A run that ends by itself."""
    command = [sys.executable, "-m", "uproxy.cli", "run", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_the_written_configuration_is_what_it_was_made_of(tmp_path: Path) -> None:
    """And kube-proxy, which reads the first document only, finds its own there."""
    path, again = tmp_path / "c.yaml", tmp_path / "again.yaml"
    args = [
        "--manifests",
        "x",
        "--workers",
        "3",
        "--lb-pool",
        "192.0.2.1",
        "--metrics-bind-address=",
    ]
    done = run(*args, "--write-config-to", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith(f"the configuration is in {path}\n")
    first, second = path.read_text().split("---\n")
    assert first.startswith(KUBE_PROXY)
    assert second.startswith(OWN)
    assert "workers: 3\n" in second
    assert run("--config", str(path), "--write-config-to", str(again)).returncode == 0
    assert again.read_text() == path.read_text()


def test_a_configuration_that_cannot_be_written(tmp_path: Path) -> None:
    done = run("--write-config-to", str(tmp_path / "missing" / "c.yaml"))
    assert done.returncode == 2
    assert done.stderr == (
        f"uproxy run: --write-config-to: {tmp_path}/missing/c.yaml: No such file or directory\n"
    )


def test_a_path_that_yaml_cannot_have(tmp_path: Path) -> None:
    done = run("--manifests", "\udcff", "--write-config-to", str(tmp_path / "c.yaml"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith('\\udcff" is not UTF-8, so YAML cannot contain it; rename the file')
    assert not (tmp_path / "c.yaml").exists()


def test_a_variable_that_is_no_option_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uproxy.cli", "run", "--write-config-to", str(tmp_path / "c.yaml")],
        env={"UPROXY_WROKERS": "2", "UPROXY_SERVICE_HOST": "10.96.0.1"},
        capture_output=True,
        text=True,
        check=True,
    )
    (warning,) = (line for line in done.stderr.splitlines() if "WARNING" in line)
    assert warning.endswith("did you mean UPROXY_WORKERS?")


class Configured:
    """A uproxy with a configuration file, which serves one NodePort."""

    def __init__(self, uproxy: Program, path: Path, node_port: int) -> None:
        self.uproxy = uproxy
        self.path = path
        self.node_port = node_port
        self._head = path.read_text()

    def reload(self, text: str, *wanted: str) -> str:
        """Change the file, wait until something is logged about it, with the wanted words, and
        return that."""
        self.path.write_text(self._head + text)
        before = len(self.uproxy.log)
        self.uproxy.process.send_signal(signal.SIGHUP)

        def said() -> list[str]:
            complete = self.uproxy.log[before:].rpartition("\n")[0]
            return [each for each in complete.splitlines() if str(self.path) in each]

        def answered() -> bool:
            return bool(said()) and all(any(each in line for line in said()) for each in wanted)

        wait_for(f"an answer with {wanted}", answered)
        return "\n".join(said())

    def setting(self, name: str) -> tuple[Any, str]:
        """A value in effect, and where it comes from."""
        found = json.loads(self.uproxy.get(self.uproxy.metrics, "/configz")[1])
        return found["uproxy.dev"][name], found["origins"][name]


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    directory = tmp_path_factory.mktemp("configured")
    manifests, path, node_port = directory / "manifests", directory / "c.yaml", free_port()
    manifests.mkdir()
    path.write_text(f"{OWN}manifests: [manifests]\n")
    ports = [{"name": "main", "port": 80, "nodePort": node_port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        source = ["--config", str(path)]
        with program(manifests, "--busy-poll", "never", workers=1, source=source) as uproxy:
            yield Configured(uproxy, path, node_port)


def test_the_first_lines_say_what_is_served_and_where_the_page_is(configured: Configured) -> None:
    lines = configured.uproxy.log.splitlines()
    # On a busy machine it says before that what it waits for.
    first, second, *_ = [each for each in lines if " waiting for " not in each]
    manifests = configured.path.parent / "manifests"
    assert f" serves the Services of the manifests in {manifests} on node here" in first
    assert second.endswith(f"the status page is at http://127.0.0.1:{configured.uproxy.metrics}/")


def test_a_hangup_changes_what_can_change(configured: Configured) -> None:
    """Here, addresses of NodePorts in the control process, and a timeout in a worker."""
    uproxy, path, port = configured.uproxy, configured.path, configured.node_port
    assert configured.setting("maxFlows") == (65536, "default")
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as idle:
        assert read_line(idle) == "a"
        configured.reload(
            "tcpIdleTimeout: 100ms\nmaxFlows: 9\n---\n" + KUBE_PROXY,
            f"{path}: changed maxFlows from 65536 to 9",
            f"{path}: changed tcpIdleTimeout from 24h to 100ms",
        )
        assert configured.setting("maxFlows") == (9, f"maxFlows in {path}:5")
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
    localhost = f"---\n{KUBE_PROXY}nodePortAddresses: [localhost]\n"
    configured.reload(localhost, "changed nodePortAddresses from [] to [localhost]")
    wait_for("localhost", lambda: uproxy.frontend(f"127.0.0.1:{port}/TCP"))
    assert uproxy.frontend(f"0.0.0.0:{port}/TCP") == {}
    assert configured.setting("maxFlows") == (65536, "default"), "the file says it no more"


def test_a_hangup_changes_who_may_ask(configured: Configured) -> None:
    def status() -> int:
        connection = HTTPConnection("127.0.0.1", configured.uproxy.metrics, timeout=PATIENCE)
        with closing(connection):
            connection.request("GET", "/proxyMode", headers={"Host": "node7.example"})
            return connection.getresponse().status

    assert status() == 421
    configured.reload("metricsAllowedHosts: [node7.example]\n")
    assert status() == 200
    configured.reload("")
    assert status() == 421


def test_a_hangup_says_what_cannot_change(configured: Configured) -> None:
    said = configured.reload(
        "ioUring: never\nworkers: 7\nbusyPoll: auto\n",
        f"{configured.path}: restart uproxy to change ioUring from auto to never",
    )
    assert "workers" not in said, "the flag wins over the file"
    assert configured.setting("ioUring") == ("auto", "default")
    note = "restart uproxy to put into effect: ioUring"
    assert note in configured.uproxy.status()["notes"]
    configured.reload("", "it changes nothing")
    assert note not in configured.uproxy.status()["notes"]


def test_a_file_that_cannot_be_used_changes_nothing(configured: Configured) -> None:
    configured.reload("maxFlows: 9\n")
    for text, reason in (
        ("maxFlow: 10\n", ':4: maxFlow: unknown field; did you mean "maxFlows"?'),
        ("minSyncPeriod: 1h\n", ":4: minSyncPeriod: 1h is longer than the sync period (30s);"),
    ):
        wanted = f"the configuration stays as it is: --config: {configured.path}{reason}"
        said = configured.reload(text, wanted)
        assert "\n" not in said
        assert configured.setting("maxFlows")[0] == 9
    configured.reload("")
    configured.reload("", f"{configured.path} was read again; it changes nothing")


def test_a_hangup_changes_pools(tmp_path: Path) -> None:
    """A Service that waits for an address gets one of the new range, and none loses its own."""
    manifests, path, port = tmp_path / "manifests", tmp_path / "c.yaml", free_port()
    manifests.mkdir()
    path.write_text(f"{OWN}lbPools: [127.51.0.1]\nannounce: never\n")
    ports = [{"name": "main", "port": port}]
    for name in ("one", "two"):
        write(manifests, f"{name}.yaml", service(name, type="LoadBalancer", ports=ports))
    with program(manifests, "--config", str(path), workers=1) as uproxy:

        def addresses() -> dict[str, str]:
            found = uproxy.status()["loadBalancer"]["services"]
            return {each["service"]: each["addresses"][0] for each in found if each["addresses"]}

        wait_for("one address", addresses)
        before = addresses()
        assert list(before.values()) == ["127.51.0.1"]
        path.write_text(path.read_text().replace("0.1]", "0.1-127.51.0.2]"))
        uproxy.process.send_signal(signal.SIGHUP)
        wait_for("another", lambda: len(addresses()) == 2)
        assert addresses().items() > before.items()
        wait_for("its frontend", lambda: uproxy.frontend(f"127.51.0.2:{port}/TCP"))
