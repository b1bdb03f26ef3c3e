"""`uproxy run --kubeconfig`: a real process, a server that answers like a cluster's."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.pods import pod, read_line, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for
from tests.fake_api.kinds import NODES, SERVICES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.fake_api.watching import Watching
from tests.ports import free_port

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}}
kubectl = shutil.which("kubectl")


@pytest.fixture
def api() -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        running.call(lambda server: server.apply(NODE))
        yield running


@contextmanager
def following(api: ThreadedApi, tmp_path: Path, *options: str, **more: Any) -> Iterator[Program]:
    """uproxy, watching the cluster."""
    path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
    with program(tmp_path, *options, source=["--kubeconfig", str(path)], **more) as running:
        yield running


def cluster_ip(name: str, address: str, port: int, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "main", "port": port}]
    return service(name, type="ClusterIP", clusterIP=address, ports=ports, **spec)


def apply(api: ThreadedApi, *objects: dict[str, Any]) -> None:
    api.call(lambda server: server.apply(*objects))


def refused(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 5).close()
    except OSError:
        return True
    return False


@pytest.mark.skipif(kubectl is None, reason="kubectl is not installed")
def test_what_kubectl_applies_is_served(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    manifest = tmp_path / "web.yaml"

    def run(*arguments: str) -> str:
        assert kubectl is not None
        command = [kubectl, "--kubeconfig", str(tmp_path / "kubeconfig"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with pod("a") as a, pod("b") as b, following(api, tmp_path) as running:
        web = [cluster_ip("web", "127.20.0.1", port), *endpoints("web", [a])]
        manifest.write_text(yaml.safe_dump_all(web))
        run("apply", "-f", str(manifest))
        wait_for("served", lambda: not refused("127.20.0.1", port))
        assert visit("127.20.0.1", port) == "a"
        manifest.write_text(yaml.safe_dump_all([web[0], *endpoints("web", [a, b])]))
        run("apply", "-f", str(manifest))
        wait_for("b is served", lambda: visit("127.20.0.1", port) == "b")
        assert "web" in run("get", "services,endpointslices,nodes")
        run("delete", "service", "web", "--wait=false")
        wait_for("closed", lambda: refused("127.20.0.1", port))
        assert running.process.poll() is None


def test_flows_of_an_unchanged_service_survive_whatever_happens(
    api: ThreadedApi, tmp_path: Path
) -> None:
    port, other = free_port(), free_port()

    def expire(server: FakeApi) -> None:
        server.expire()
        server.order(Watching.close)

    faults: list[Callable[[FakeApi], object]] = [
        lambda server: server.order(Watching.reset),
        expire,
    ]
    with pod("a") as a, following(api, tmp_path) as running:
        apply(api, cluster_ip("web", "127.20.0.2", port), *endpoints("web", [a]))
        wait_for("served", lambda: not refused("127.20.0.2", port))
        with socket.create_connection(("127.20.0.2", port), 5) as flow:
            assert read_line(flow) == "a"

            def alive() -> None:
                flow.sendall(b"ping\n")
                assert read_line(flow) == "ping"
                assert visit("127.20.0.2", port) == "a"

            for number, fault in enumerate(faults):
                api.call(fault)
                address = f"127.20.1.{number}"
                apply(api, cluster_ip(f"s{number}", address, other), *endpoints(f"s{number}", [a]))
                wait_for("the change is served", lambda: not refused(address, other))  # noqa: B023
                alive()
            lost = running.log.count("lost the cluster")
            api.stop()
            alive()
            wait_for("it is noticed", lambda: running.log.count("lost the cluster") > lost)
            code, kinds = running.get(running.health, "/readyz")
            assert (code, kinds.partition(":")[0]) == (200, "ok\ncluster not watched")
            assert "connection refused" in str(running.status()["notes"])
            api.server.store.delete(SERVICES, ("default", "s0"))
            api.start()
            wait_for("the rest is noticed", lambda: refused("127.20.1.0", other))
            alive()
        assert running.counts(f"127.20.0.2:{port}/TCP")["dialFailures"] == 0


def test_server_that_is_not_there_yet(api: ThreadedApi, tmp_path: Path) -> None:
    api.stop()
    with following(api, tmp_path, ready=False) as running:

        def says_why() -> bool:
            code, body = running.get(running.metrics, "/readyz")
            return code == 503 and "connection refused" in body

        wait_for("readyz says why", says_why)
        missing = "waiting for endpointslices, node, services to be listed"
        wait_for("a slow start says why", lambda: missing in running.log)
        kinds = "starting: 1\ncluster not watched: 1\n"
        assert running.get(running.health, "/readyz") == (503, kinds)
        assert f"cannot watch the cluster at {api.url}" in running.log
        api.start()
        running.wait_ready()
        assert running.log.count("watching the cluster") == 1


def test_node_that_is_to_be_deleted_wants_no_new_connections(
    api: ThreadedApi, tmp_path: Path
) -> None:
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    with following(api, tmp_path) as running:

        def healthz() -> int:
            return running.get(running.health, "/healthz")[0]

        wait_for("eligible", lambda: healthz() == 200)
        apply(api, {**NODE, "spec": {"taints": [taint]}})
        wait_for("not eligible", lambda: healthz() == 503)
        assert running.get(running.health, "/livez")[0] == 200
        apply(api, NODE)
        wait_for("eligible again", lambda: healthz() == 200)
        api.call(lambda server: server.delete(NODES, "here"))
        wait_for("the node is gone", lambda: healthz() == 503)


def test_primary_addresses_of_a_node_that_the_cluster_does_not_know(
    api: ThreadedApi, tmp_path: Path
) -> None:
    """NodePorts have no address then, and what is said names the reason."""
    port = free_port()
    api.call(lambda server: server.delete(NODES, "here"))
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        apply(api, service("web", clusterIP="127.20.0.5", ports=ports), *endpoints("web", [a]))
        with following(api, tmp_path, "--nodeport-addresses", "primary") as running:
            note = (
                "no NodePort is served at the primary addresses, since those of the Node here are"
                " not known"
            )
            assert note in running.status()["notes"]
            assert refused("127.0.0.1", port)
            address = {"type": "InternalIP", "address": "127.0.0.1"}
            apply(api, {**NODE, "status": {"addresses": [address]}})
            wait_for("the NodePort", lambda: not refused("127.0.0.1", port))
            assert visit("127.0.0.1", port) == "a"
            wait_for("the end of the note", lambda: note not in running.status()["notes"])


def test_services_of_a_proxy_name(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    ours = cluster_ip("ours", "127.20.0.3", port)
    ours["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "uproxy"}
    with pod("a") as a:
        theirs = cluster_ip("theirs", "127.20.0.4", port)
        apply(api, ours, theirs, *endpoints("ours", [a]), *endpoints("theirs", [a]))
        with following(api, tmp_path, "--service-proxy-name", "uproxy"):
            assert visit("127.20.0.3", port) == "a"
            assert refused("127.20.0.4", port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            ["--kubeconfig", "/nowhere/k"],
            "uproxy: kubeconfig /nowhere/k: no such file; give one with --kubeconfig FILE\n",
            id="no such file",
        ),
        pytest.param(
            [],
            "uproxy: nothing to serve: not running in a Pod, and no kubeconfig was found; give "
            "--kubeconfig FILE or --manifests PATH, or try: uproxy demo\n",
            id="nothing",
        ),
        pytest.param(
            ["--kubeconfig", "k", "--manifests", "m"],
            "uproxy run: --manifests: objects come either from manifests or from a cluster "
            "(--kubeconfig); leave one out\n",
            id="both",
        ),
    ],
)
def test_what_cannot_work_ends_with_2(options: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uproxy.cli", "run", "--hostname-override", "x", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith(message)
    assert "Traceback" not in done.stderr


def test_status_says_what_healthz_says(api: ThreadedApi, tmp_path: Path) -> None:
    """A Node that the cluster does not know, then does, and is about to lose."""

    def agreed(code: int, word: str) -> bool:
        called = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert called.returncode == (0 if code == 200 else 1), called.stderr
        said = called.stdout.startswith(f"Node here: {word}; ")
        return said and running.get(running.health, "/healthz")[0] == code

    api.call(lambda server: server.delete(NODES, "here"))
    with following(api, tmp_path) as running:
        url = f"http://127.0.0.1:{running.metrics}"
        command = [sys.executable, "-m", "uproxy.cli", "status", "--check", "--url", url]
        assert agreed(503, "not healthy")
        assert running.get(running.health, "/readyz")[0] == 200, "clients are served all the same"
        api.call(lambda server: server.apply(NODE))
        wait_for("a known node", lambda: running.get(running.health, "/healthz")[0] == 200)
        assert agreed(200, "ready")
        leaving = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
        api.call(lambda server: server.apply(NODE | {"spec": {"taints": [leaving]}}))
        wait_for("a leaving node", lambda: running.get(running.health, "/healthz")[0] == 503)
        assert agreed(503, "not healthy")
