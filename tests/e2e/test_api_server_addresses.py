"""A Pod in place of kube-proxy: at the start nothing serves the ClusterIP of the API server, and
later the API server moves. The Pod's files are put into a mount namespace, where nobody sees them
but the program."""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pods import pod, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for
from tests.fake_api.kinds import SLICES
from tests.fake_api.kubeconfigs import Authority, server_context, write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.ports import free_port
from uproxy.apiserver.candidates import IN_CLUSTER_NAME

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}}
MOUNT = """
mount -t tmpfs none "$(realpath /var/run)"
mkdir -p /var/run/secrets/kubernetes.io
cp -r "$0" /var/run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""
WEB = "127.20.4.1"


def unshare() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *as_root]


@functools.cache
def can_mount() -> bool:
    if not (shutil.which("unshare") and shutil.which("openssl")):
        return False
    attempt = [*unshare(), "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


in_pods = pytest.mark.skipif(
    not can_mount(), reason="mount namespaces and the openssl program are needed"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.issue("api-server", f"DNS:{IN_CLUSTER_NAME}"))


@pytest.fixture
def api(context: ssl.SSLContext) -> Iterator[ThreadedApi]:
    server = FakeApi(tls=context)
    server.tokens = {"token-of-the-pod"}
    with in_thread(server) as running:
        apply(running, NODE, kubernetes(running.server))
        yield running


@pytest.fixture
def service_account(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a Pod gets; nothing answers at the address in its environment."""
    directory = tmp_path / "service-account"
    directory.mkdir()
    shutil.copy(authority.certificate, directory / "ca.crt")
    (directory / "token").write_text("token-of-the-pod")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(free_port()))
    return directory


def apply(api: ThreadedApi, *objects: dict[str, Any]) -> None:
    api.call(lambda server: server.apply(*objects))


def kubernetes(server: FakeApi) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"kubernetes-{server.port}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": server.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [server.host]}],
    }


def cluster_ip(name: str, address: str, port: int) -> dict[str, Any]:
    ports = [{"name": "main", "port": port}]
    return service(name, type="ClusterIP", clusterIP=address, ports=ports)


@contextmanager
def in_pod(service_account: Path, *options: str, **more: Any) -> Iterator[Program]:
    directory = service_account.parent
    options = ("--state-dir", str(directory / "state"), *options)
    wrapper = [*unshare(), "sh", "-ec", MOUNT, str(service_account)]
    with program(directory, *options, source=[], wrapper=wrapper, **more) as running:
        yield running


def addresses(running: Program) -> dict[str, str]:
    """ "in use", or why not, by URL."""
    return {
        each["address"]: "in use" if each["inUse"] else each["reason"]
        for each in running.status()["apiServers"]
    }


@in_pods
def test_from_kubelets_kubeconfig_to_a_new_api_server(
    api: ThreadedApi, context: ssl.SSLContext, service_account: Path, tmp_path: Path
) -> None:
    port = free_port()
    kubelet = write_kubeconfig(tmp_path / "kubelet.conf", api.url, user={"token": "kubelets"})
    second = FakeApi(tls=context, same_cluster_as=api.server)
    with pod("a") as a, pod("b") as b:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        with in_pod(service_account, "--kubelet-kubeconfig", str(kubelet)) as running:
            assert visit(WEB, port) == "a"
            assert addresses(running)[api.url] == "in use"
            assert f"using the API server {api.url}, from kubelet's kubeconfig" in running.log
            with api.beside(second) as new:
                apply(new, kubernetes(second))
                new.call(lambda server: server.delete(SLICES, f"kubernetes-{api.server.port}"))
                wait_for("it is known", lambda: new.url in addresses(running))
                api.stop()
                apply(new, *endpoints("web", [b]))
                (old,) = endpoints("web", [a])
                new.call(lambda server: server.delete(SLICES, old["metadata"]["name"]))
                wait_for("the change is served", lambda: visit(WEB, port) == "b")
                found = addresses(running)
                assert (found[new.url], found[api.url]) == ("in use", "connection refused")
                assert running.get(running.health, "/readyz")[0] == 200
        tokens = {each.headers["Authorization"] for each in api.server.requests}
        assert tokens == {"Bearer token-of-the-pod"}, "kubelet's credentials are not used"


@in_pods
@pytest.mark.parametrize("away", [False, True])
def test_the_doctor_asks_all_addresses(
    api: ThreadedApi, service_account: Path, tmp_path: Path, away: bool
) -> None:
    kubelet = write_kubeconfig(tmp_path / "kubelet.conf", api.url)
    if away:
        api.stop()
    command = [*unshare(), "sh", "-ec", MOUNT, str(service_account)]
    command += [sys.executable, "-m", "uproxy.cli", "doctor", "-o", "json"]
    command += ["--kubelet-kubeconfig", str(kubelet)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    (found,) = (each for each in json.loads(done.stdout) if each["check"] == "API server")
    environment = "(the environment of this Pod): connection refused"
    if away:
        assert found["result"] == "fail"
        assert f"{api.url} (kubelet's kubeconfig {kubelet}): connection refused" in found["text"]
        assert done.returncode == 1
    else:
        assert found["result"] == "ok"
        assert f"answers at {api.url}, from kubelet's kubeconfig {kubelet}" in found["text"]
    assert found["text"].endswith(environment)


@in_pods
@pytest.mark.parametrize("kubelet", ["no file", "a dead address"])
def test_a_restart_with_the_last_known_state_only(
    api: ThreadedApi, service_account: Path, tmp_path: Path, kubelet: str
) -> None:
    """If kubelet names an address, the state is not read for others until that has failed."""
    port, path = free_port(), tmp_path / "kubelet.conf"
    if kubelet == "a dead address":
        write_kubeconfig(path, f"https://127.0.0.1:{free_port()}")
    with pod("a") as a, pod("b") as b:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        given = api.url.removeprefix("https://")
        with in_pod(service_account, "--apiserver-address", given) as running:
            assert visit(WEB, port) == "a"
            assert running.stop() == 0
        apply(api, *endpoints("web", [b]))
        (old,) = endpoints("web", [a])
        api.call(lambda server: server.delete(SLICES, old["metadata"]["name"]))
        with in_pod(service_account, "--kubelet-kubeconfig", str(path)) as running:
            wait_for("the cluster is followed", lambda: visit(WEB, port) == "b")
            assert addresses(running)[api.url] == "in use"
            assert "from the EndpointSlice of the Service kubernetes" in running.log


@in_pods
def test_a_start_while_no_address_answers_says_why(
    api: ThreadedApi, service_account: Path, tmp_path: Path
) -> None:
    port = free_port()
    kubelet = write_kubeconfig(tmp_path / "kubelet.conf", api.url)
    api.stop()
    with pod("a") as a:
        options = ("--kubelet-kubeconfig", str(kubelet))
        with in_pod(service_account, *options, ready=False) as running:
            text = "no address of the API server answers: "
            wait_for("the reason", lambda: text in running.get(running.metrics, "/readyz")[1])
            wait_for("it is logged", lambda: text in running.log)
            assert addresses(running)[api.url] == "connection refused"
            apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
            api.start()
            running.wait_ready()
            assert visit(WEB, port) == "a"
            assert addresses(running)[api.url] == "in use"
            assert sum(text in line for line in running.log.splitlines()) <= 3, (
                "once, or once for each resource at most"
            )


def test_a_kubeconfig_and_another_address(tmp_path: Path) -> None:
    """Without --apiserver-address there is one address, which is not asked whether it is ready."""
    port, dead = free_port(), f"127.0.0.1:{free_port()}"
    with in_thread(FakeApi()) as api, pod("a") as a:
        apply(api, NODE, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", f"http://{dead}")
        source = ["--kubeconfig", str(kubeconfig)]
        given = ("--apiserver-address", api.url.removeprefix("http://"))
        with program(tmp_path, *given, source=source) as running:
            assert visit(WEB, port) == "a"
            assert addresses(running) == {api.url: "in use", f"http://{dead}": ""}
        write_kubeconfig(kubeconfig, api.url)
        asked = len(api.server.asked("/readyz"))
        with program(tmp_path, source=source) as running:
            assert visit(WEB, port) == "a"
            assert addresses(running) == {api.url: "in use"}
        assert len(api.server.asked("/readyz")) == asked
