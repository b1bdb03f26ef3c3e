"""`uproxy run --manifests`: what clients and operators see, on real sockets."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.pods import ask, pod, read_line, visit
from tests.e2e.program import PATIENCE, endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory


def refused(port: int, address: str = HERE) -> bool:
    try:
        socket.create_connection((address, port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # It was in the queue when the listener was closed.
    return False


def test_every_kind_of_address(manifests: Path) -> None:
    node_port, port = free_port(), free_port()
    with pod("a") as a, pod("b") as b:
        web = service(
            "web",
            type="LoadBalancer",
            clusterIP="127.10.0.1",
            externalIPs=["127.10.0.2"],
            ports=[{"name": "main", "port": port, "nodePort": node_port}],
            status={"loadBalancer": {"ingress": [{"ip": "127.10.0.3"}]}},
        )
        write(manifests, "web.yaml", web, *endpoints("web", [a, b]))
        with program(manifests):
            for address, number in (
                ("127.10.0.1", port),
                ("127.10.0.2", port),
                ("127.10.0.3", port),
                (HERE, node_port),
                ("127.0.0.77", node_port),
            ):
                assert {visit(address, number) for _ in range(20)} == {"a", "b"}, address


def test_udp_and_tcp_on_one_port(manifests: Path) -> None:
    port = free_port()
    with pod("tcp") as tcp, pod("udp") as udp:
        dns = service(
            "dns",
            ports=[
                {"name": "t", "port": 53, "nodePort": port},
                {"name": "u", "port": 53, "nodePort": port, "protocol": "UDP"},
            ],
        )
        slices = endpoints("dns", [tcp], port="t")
        slices += endpoints("dns", [udp], port="u", protocol="UDP")
        write(manifests, "dns.yaml", dns, *slices)
        with program(manifests) as uproxy:
            assert visit(HERE, port) == "tcp"
            assert ask(HERE, port) == "udp hello"
            wait_for("counts", lambda: uproxy.counts(f"0.0.0.0:{port}/UDP")["backendDatagrams"])
            counts = uproxy.counts(f"0.0.0.0:{port}/UDP")
            assert (counts["flows"], counts["clientBytes"], counts["backendBytes"]) == (1, 5, 9)


def test_changes_are_followed_within_200_ms(manifests: Path) -> None:
    """The bound is for the quickest of ten, as the machine may be busy: whatever waits would
    delay them all."""
    port = free_port()
    times = []
    with pod("a") as a, pod("b") as b:
        ports = [{"name": "main", "port": 80, "nodePort": port}]
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests):
            for turn in range(10):
                target = (b, a)[turn % 2]
                began = time.monotonic()
                write(
                    manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [target])
                )
                while visit(HERE, port) != target.name:
                    assert time.monotonic() < began + PATIENCE, "the new pod never came"
                times.append(time.monotonic() - began)
            (manifests / "web.yaml").unlink()
            wait_for("closed", lambda: refused(port))
    assert min(times) < 0.2, times


def test_a_change_of_endpoints_does_not_disturb_a_connection(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a, pod("b") as b:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests), socket.create_connection((HERE, port)) as client:
            assert read_line(client) == "a"
            write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [b]))
            wait_for("new pod", lambda: visit(HERE, port) == "b")
            client.sendall(b"still with a\n")
            assert read_line(client) == "still with a"


def test_no_endpoints_is_refused_until_there_are_some(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    frontend = f"0.0.0.0:{port}/TCP"
    write(manifests, "web.yaml", service("web", ports=ports))
    with pod("a") as a, program(manifests) as uproxy:
        assert refused(port)
        paused = uproxy.frontend(frontend)
        assert (paused["state"], paused["reason"]) == ("paused", "no endpoints")
        write(manifests, "slice.yaml", *endpoints("web", [a]))
        wait_for("served", lambda: not refused(port))
        assert visit(HERE, port) == "a"
        (manifests / "slice.yaml").unlink()
        wait_for("refused", lambda: refused(port))
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind((HERE, port))


def test_udp_without_endpoints_is_unreachable(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 53, "nodePort": port, "protocol": "UDP"}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports))
        slices = endpoints("web", [a], protocol="UDP")
        with program(manifests):
            with pytest.raises(ConnectionRefusedError):
                ask(HERE, port)
            write(manifests, "slice.yaml", *slices)
            wait_for("served", lambda: answered(port))
            (manifests / "slice.yaml").unlink()
            wait_for("refused", lambda: not answered(port))


def answered(port: int) -> bool:
    """False once the port is unreachable; a datagram may be lost when its socket is closed."""
    while True:
        try:
            return bool(ask(HERE, port, patience=2))
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            continue


def test_udp_client_moves_when_its_pod_goes(manifests: Path) -> None:
    """kube-proxy's conntrack test: a client that keeps its port must reach the new pod."""
    port = free_port()
    ports = [{"name": "main", "port": 53, "nodePort": port, "protocol": "UDP"}]
    with pod("a") as a, pod("b") as b, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((HERE, port))
        web = service("web", ports=ports)
        write(manifests, "web.yaml", web, *endpoints("web", [a], protocol="UDP"))
        with program(manifests):
            client.send(b"1")
            assert client.recv(100) == b"a 1"
            client.settimeout(1)
            write(manifests, "web.yaml", web, *endpoints("web", [b], protocol="UDP"))

            def moved() -> bool:
                client.send(b"2")
                try:
                    return client.recv(100) == b"b 2"
                except TimeoutError:
                    return False  # An answer that was on its way when its flow was closed is lost.

            wait_for("the new pod answers", moved)


def test_one_nodeport_for_two_services(manifests: Path) -> None:
    """The older one has it; when it goes, the other takes over without a gap of its own."""
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    frontend = f"0.0.0.0:{port}/TCP"
    with pod("old") as old, pod("new") as new:
        older, newer = service("older", ports=ports), service("newer", ports=ports)
        older["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z"
        newer["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
        write(manifests, "older.yaml", older, *endpoints("older", [old]))
        write(manifests, "newer.yaml", newer, *endpoints("newer", [new]))
        with program(manifests) as uproxy:
            assert {visit(HERE, port) for _ in range(6)} == {"old"}
            both = [each for each in uproxy.status()["frontends"] if each["frontend"] == frontend]
            states = {each["service"]: each["state"] for each in both}
            assert states == {"default/older": "serving", "default/newer": "conflict"}
            (manifests / "older.yaml").unlink()
            wait_for("the newer one", lambda: visit(HERE, port) == "new")


def test_a_port_in_use_is_one_frontends_trouble(manifests: Path) -> None:
    taken, port = free_port(), free_port()
    with pod("a") as a, socket.create_server(("0.0.0.0", taken)) as other:
        ports = [
            {"name": "main", "port": 80, "nodePort": taken},
            {"name": "more", "port": 81, "nodePort": port},
        ]
        slices = endpoints("web", [a]) + endpoints("web", [a], port="more")
        write(manifests, "web.yaml", service("web", ports=ports), *slices)
        with program(manifests, ready=False) as uproxy:
            wait_for("the other port", lambda: not refused(port))
            assert visit(HERE, port) == "a"
            status = uproxy.frontend(f"0.0.0.0:{taken}/TCP")
            assert status["state"] == "failed"
            assert status["reason"] == (
                f"TCP port {taken} on 0.0.0.0 is already in use by another process"
            )
            wanted = f"default/web: 0.0.0.0:{taken}/TCP is not open"
            wait_for("its reason", lambda: wanted in uproxy.get(uproxy.metrics, "/readyz")[1])
            who = (
                f"(process {os.getpid()}) has the port of 0.0.0.0:{taken}/TCP for default/web:main;"
            )
            wait_for("who has it", lambda: who in uproxy.get(uproxy.metrics, "/readyz")[1])
            told = "frontend not open: 1\nports in use by another process: 1\n"
            assert uproxy.get(uproxy.health, "/readyz") == (503, told)
            other.close()
            uproxy.wait_ready()
            assert visit(HERE, taken) == "a"


def test_an_address_that_is_not_here(manifests: Path) -> None:
    port = free_port()
    with pod("a") as a:
        web = service(
            "web",
            type="ClusterIP",
            clusterIP="192.0.2.80",
            ports=[{"name": "main", "port": port}],
        )
        write(manifests, "web.yaml", web, *endpoints("web", [a]))
        with program(manifests) as uproxy:
            status = uproxy.frontend(f"192.0.2.80:{port}/TCP")
            assert status["state"] == "elsewhere"
            reason = "address 192.0.2.80 is not on this node, and --claim-addresses is never"
            assert status["reason"] == reason


def test_an_external_ip_that_is_not_ours_is_refused(manifests: Path) -> None:
    """Whoever may create a Service could take any address otherwise (CVE-2020-8554)."""
    with pod("a") as a:
        web = service("web", externalIPs=["192.0.2.80"], ports=[{"name": "main", "port": 80}])
        write(manifests, "web.yaml", web, *endpoints("web", [a]))
        with program(manifests) as uproxy:
            reasons = [each["reason"] for each in uproxy.status()["services"]]
            assert any("192.0.2.80 is not an address of this node" in each for each in reasons)


def test_a_backend_that_is_our_own_frontend_is_left_out(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a, pod("loop") as loop:
        loop.close()
        loop.port = port
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a, loop]))
        with program(manifests) as uproxy:
            assert {visit(HERE, port) for _ in range(10)} == {"a"}
            reason = uproxy.frontend(f"0.0.0.0:{port}/TCP")["reason"]
            assert f"127.0.0.1:{port}" in reason
            assert "frontends of uproxy itself" in reason


def test_a_file_that_turns_bad_keeps_its_last_good_version(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy:
            (manifests / "web.yaml").write_text("apiVersion: v1\nkind: Service\n  bad: [\n")
            wait_for("error", lambda: uproxy.status()["objects"])
            (error,) = uproxy.status()["objects"]
            assert error["where"].endswith("web.yaml:3")
            assert visit(HERE, port) == "a"
            write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
            wait_for("no error", lambda: not uproxy.status()["objects"])


def test_one_bad_object_is_one_bad_object(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        bad = service("bad", ports=[{"name": "main", "port": "eighty"}])
        none = service("none", ports=[])
        write(manifests, "web.yaml", bad, none, service("web", ports=ports))
        write(manifests, "slices.yaml", *endpoints("web", [a]))
        with program(manifests) as uproxy:
            assert visit(HERE, port) == "a"
            status = uproxy.status()
            (error,) = status["objects"]
            assert error["field"] == "spec.ports[0].port"
            text = (manifests / "web.yaml").read_text().splitlines()
            line = int(error["where"].rpartition(":")[2])
            assert "eighty" in text[line - 1]
            assert {"service": "default/none", "reason": "spec.ports is empty"} in status[
                "services"
            ]


def test_a_mounted_config_map(manifests: Path) -> None:
    """Kubernetes swaps a symbolic link to a directory; the files' own links never change."""
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a, pod("b") as b:
        for version, target in (("1", a), ("2", b)):
            (manifests / f"..{version}").mkdir()
            objects = [service("web", ports=ports), *endpoints("web", [target])]
            (manifests / f"..{version}" / "web.yaml").write_text(yaml.safe_dump_all(objects))
        (manifests / "..data").symlink_to("..1")
        (manifests / "web.yaml").symlink_to("..data/web.yaml")
        with program(manifests):
            assert visit(HERE, port) == "a"
            (manifests / "..tmp").symlink_to("..2")
            os.rename(manifests / "..tmp", manifests / "..data")
            wait_for("the new version", lambda: visit(HERE, port) == "b")


def test_session_affinity_over_all_workers_and_frontends(manifests: Path) -> None:
    port, node_port = free_port(), free_port()
    with pod("a") as a, pod("b") as b, pod("c") as c:
        web = service(
            "web",
            clusterIP="127.10.0.9",
            sessionAffinity="ClientIP",
            ports=[{"name": "main", "port": port, "nodePort": node_port}],
        )
        write(manifests, "web.yaml", web, *endpoints("web", [a, b, c]))
        with program(manifests, workers=3):
            first = visit(HERE, node_port)
            assert {visit(HERE, node_port) for _ in range(15)} == {first}
            assert {visit("127.10.0.9", port) for _ in range(15)} == {first}


def test_health_check_node_port(manifests: Path) -> None:
    port, health_port = free_port(), free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a, pod("far") as far:
        web = service(
            "web",
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=health_port,
            ports=ports,
        )
        write(manifests, "web.yaml", web, *endpoints("web", [far], node="there"))
        write(manifests, "near.yaml", *endpoints("web", [a]))
        with program(manifests) as uproxy:
            assert uproxy.get(health_port, "/healthz")[0] == 200
            (manifests / "near.yaml").unlink()
            wait_for("503", lambda: uproxy.get(health_port, "/healthz")[0] == 503)
            assert visit(HERE, port) == "far", "this node is short-circuited to the cluster"
            (manifests / "web.yaml").unlink()
            wait_for("closed", lambda: uproxy.get(health_port, "/healthz")[0] == 0)


def test_a_health_check_node_port_that_was_taken_answers_when_it_is_free(manifests: Path) -> None:
    """Within 15 s, and nothing else has to change for that."""
    port, health_port = free_port(), free_port()
    with pod("a") as a, socket.create_server(("127.0.0.1", health_port)) as other:
        web = service(
            "web",
            ports=[{"name": "main", "port": port, "nodePort": port}],
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=health_port,
        )
        write(manifests, "web.yaml", web, *endpoints("web", [a]))
        with program(manifests) as running:
            [check] = running.status()["healthChecks"]
            assert "in use" in check["reason"]
            other.close()
            wait_for("an answer", lambda: running.get(health_port, "/")[0] == 200, patience=15)
            assert running.status()["healthChecks"][0]["reason"] == ""


def test_metrics_name_the_service(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy:
            visit(HERE, port)
            labels = 'namespace="default",port="main",protocol="TCP",service="web"'
            wait_for(
                "the flow is counted",
                lambda: (
                    f"uproxy_flows_total{{{labels}}} 1.0"
                    in uproxy.get(uproxy.metrics, "/metrics")[1]
                ),
            )
            assert uproxy.get(uproxy.metrics, "/proxyMode") == (200, "userspace")
            assert uproxy.get(uproxy.health, "/livez")[0] == 200
