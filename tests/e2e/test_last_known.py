"""Without an API server: the last-known state. With one: Events, and the time to serve a change."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pods import pod, read_line, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for
from tests.fake_api.kinds import EVENTS, SERVICES, SLICES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.ports import free_port
from uproxy.sources.last_known.snapshot import FILE_NAME

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}}
WEB, GONE = "127.21.0.1", "127.21.0.2"


@pytest.fixture
def api() -> Iterator[ThreadedApi]:
    with in_thread(FakeApi()) as running:
        apply(running, NODE)
        yield running


@contextmanager
def following(api: ThreadedApi, tmp_path: Path, **more: Any) -> Iterator[Program]:
    path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
    options = ["--state-dir", str(tmp_path / "state"), "--claim-addresses", "never"]
    source = ["--kubeconfig", str(path)]
    with program(tmp_path, *options, source=source, **more) as running:
        yield running


def apply(api: ThreadedApi, *objects: dict[str, Any]) -> None:
    api.call(lambda server: server.apply(*objects))


def cluster_ip(name: str, address: str, port: int) -> dict[str, Any]:
    ports = [{"name": "main", "port": port}]
    return service(name, type="ClusterIP", clusterIP=address, ports=ports)


def events(api: ThreadedApi) -> dict[str, dict[str, Any]]:
    """By reason."""
    items = api.call(lambda server: [each.data for each in server.store.items(EVENTS).values()])
    return {each["reason"]: each for each in items}


def refused(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 5).close()
    except OSError:
        return True
    return False


def test_a_start_without_an_api_server(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    with pod("a") as a, pod("b") as b:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        apply(api, cluster_ip("gone", GONE, port), *endpoints("gone", [a]))
        with following(api, tmp_path) as first:
            assert visit(WEB, port) == "a"
            assert first.stop() == 0
        api.stop()
        with following(api, tmp_path) as second:
            code, text = second.get(second.health, "/readyz")
            assert code == 200
            assert re.fullmatch(
                r"ok\ncluster not watched: [1-3]\nlast-known state served: 1\n", text
            )
            code, text = second.get(second.metrics, "/readyz")
            assert code == 200
            assert re.search(r"\nserving the last-known state of \S+Z: the API .*\n", text)
            assert "cannot watch services: connection refused\n" in text
            assert "serving the last-known state of" in second.log
            _, text = second.get(second.metrics, "/metrics")
            assert 'uproxy_problems{kind="last-known state served"} 1.0\n' in text
            assert "\nuproxy_ready 1.0\n" in text
            with socket.create_connection((WEB, port), 5) as flow:
                assert read_line(flow) == "a"
                api.call(lambda server: server.delete(SERVICES, "gone"))
                apply(api, *endpoints("web", [b]))
                api.start()
                wait_for("the new endpoint", lambda: visit(WEB, port) == "b")
                wait_for("the removed Service", lambda: refused(GONE, port))
                flow.sendall(b"still here\n")
                assert read_line(flow) == "still here"
            # What has listed last may be the Nodes.
            wait_for("ok", lambda: second.get(second.health, "/readyz") == (200, "ok"))


def test_a_damaged_file_is_ignored(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE_NAME).write_text("nonsense\n")
    api.stop()
    with pod("a") as a, following(api, tmp_path, ready=False) as running:
        wait_for("the message", lambda: "the last-known state is ignored" in running.log)
        assert running.get(running.health, "/readyz")[0] == 503
        _, text = running.get(running.metrics, "/metrics")
        assert 'uproxy_problems{kind="starting"} 1.0\n' in text
        assert "\nuproxy_ready 0.0\n" in text
        api.start()
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        wait_for("it is served", lambda: not refused(WEB, port))
        running.wait_ready()
        assert running.log.count("last-known state") == 1


def test_a_port_that_is_taken_becomes_an_event(api: ThreadedApi, tmp_path: Path) -> None:
    with pod("a") as a, socket.create_server((WEB, 0)) as other:
        port = other.getsockname()[1]
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        with following(api, tmp_path, ready=False):
            wait_for("it is told", lambda: {"Starting", "FailedToListen"} <= events(api).keys())
            told = events(api)["FailedToListen"]
            assert told["note"] == (
                f"node here: TCP port {port} on {WEB} is already in use by another process"
            )
            uid = api.call(lambda server: server.store.get(SERVICES, ("default", "web")).data)
            assert told["regarding"]["uid"] == uid["metadata"]["uid"]
            assert events(api)["Starting"]["regarding"]["kind"] == "Node"
            other.close()
            wait_for("the end is told", lambda: "Recovered" in events(api))


def test_an_external_ip_that_is_not_allowed_becomes_an_event(
    api: ThreadedApi, tmp_path: Path
) -> None:
    """It says with which option the address would be served; so does `uproxy explain`."""
    port = free_port()
    plain = cluster_ip("web", WEB, port)
    with pod("a") as a:
        apply(api, plain | {"spec": plain["spec"] | {"externalIPs": ["2001:DB8::cb00:71fa"]}})
        apply(api, *endpoints("web", [a]))
        with following(api, tmp_path) as running:
            # Only the families of the clusterIPs count.
            assert "ExternalIPNotAllowed" not in events(api)
            spec = plain["spec"] | {"externalIPs": ["203.0.113.250"]}
            apply(api, plain | {"spec": spec})
            wait_for("it is told", lambda: "ExternalIPNotAllowed" in events(api))
            reason = (
                "externalIP 203.0.113.250 is not an address of this node; allow it with"
                " --external-ip-cidrs 203.0.113.250/32"
            )
            told = events(api)["ExternalIPNotAllowed"]
            assert told["note"] == f"node here: {reason}"
            assert told["regarding"]["name"] == "web"
            explain = [sys.executable, "-m", "uproxy.cli", "explain", "default/web"]
            explain += ["--url", f"http://127.0.0.1:{running.metrics}"]
            done = subprocess.run(explain, capture_output=True, text=True, timeout=60, check=True)
            assert f"But: {reason}." in done.stdout
            assert visit(WEB, port) == "a"
            apply(api, plain)
            wait_for("the end is told", lambda: "Recovered" in events(api))


def test_it_serves_though_events_are_forbidden(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    api.call(lambda server: server.answer(403, on="events", times=100))
    with pod("a") as a:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        with following(api, tmp_path) as running:
            assert visit(WEB, port) == "a"
            wait_for("it is logged", lambda: "forbids writing Events" in running.log)


def test_the_time_from_a_change_to_its_effect_is_measured(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    with pod("a") as a, pod("b") as b:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        with following(api, tmp_path) as running:
            (changed,) = endpoints("web", [b])
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            changed["metadata"]["annotations"] = {
                "endpoints.kubernetes.io/last-change-trigger-time": now
            }
            apply(api, changed)
            name = "kubeproxy_network_programming_duration_seconds_count"
            line = f'{name}{{ip_family="IPv4"}} 1'

            def measured() -> bool:
                return line in running.get(running.metrics, "/metrics")[1]

            wait_for("the metric", measured)


def test_what_can_be_listed_is_served_though_not_all_can(api: ThreadedApi, tmp_path: Path) -> None:
    port = free_port()
    api.call(lambda server: server.answer(403, on="nodes", times=1000))
    with pod("a") as a:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        with following(api, tmp_path, ready=False) as running:
            wait_for("it is served", lambda: not refused(WEB, port))
            assert visit(WEB, port) == "a"
            assert running.get(running.health, "/readyz")[0] == 503


@pytest.mark.parametrize("content", [None, "kind: Config\nclusters: [\n"], ids=["gone", "broken"])
def test_a_start_with_a_kubeconfig_that_no_longer_works(
    api: ThreadedApi, tmp_path: Path, content: str | None
) -> None:
    """It worked before, so what was known is served, and the cluster when access is back."""
    port = free_port()
    kubeconfig = tmp_path / "kubeconfig"
    options = ["--state-dir", str(tmp_path / "state")]
    with pod("a") as a, pod("b") as b:
        apply(api, cluster_ip("web", WEB, port), *endpoints("web", [a]))
        with following(api, tmp_path) as first:
            assert visit(WEB, port) == "a"
            assert first.stop() == 0
        kubeconfig.unlink()
        if content is not None:
            kubeconfig.write_text(content)
        with program(tmp_path, *options, source=["--kubeconfig", str(kubeconfig)]) as second:
            assert visit(WEB, port) == "a"
            assert str(kubeconfig) in second.log
            assert "serving the last-known state" in second.get(second.metrics, "/readyz")[1]
            (old,) = endpoints("web", [a])
            api.call(lambda server: server.delete(SLICES, old["metadata"]["name"]))
            apply(api, *endpoints("web", [b]))
            write_kubeconfig(kubeconfig, api.url)
            wait_for("the cluster", lambda: visit(WEB, port) == "b")


def test_a_broken_kubeconfig_without_a_state_ends_the_start(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    options = ["--state-dir", str(tmp_path / "state")]
    source = ["--kubeconfig", str(kubeconfig)]
    with program(tmp_path, *options, source=source, ready=False) as uproxy:
        assert uproxy.process.wait(20) == 2
        assert str(kubeconfig) in uproxy.log


def test_a_health_port_that_is_taken_is_told_of_the_node_and_tried_again(
    api: ThreadedApi, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, metrics = other.getsockname()[1], free_port()
        with following(api, tmp_path, ready=False, ports=(taken, metrics)) as running:
            name = "FailedToStartProxierHealthcheck"
            wait_for("the Event", lambda: name in events(api))
            assert events(api)[name]["regarding"]["kind"] == "Node"
            assert f"TCP port {taken} on 127.0.0.1 is already in use" in events(api)[name]["note"]
            assert running.get(metrics, "/readyz")[0] == 200, "clients are served all the same"
            has = "has the port of the health address"
            wait_for("who has it", lambda: has in running.get(metrics, "/readyz")[1])
            other.close()
            wait_for("the port", lambda: running.get(taken, "/readyz") == (200, "ok"))
            wait_for("the end of it", lambda: "Recovered" in events(api))
