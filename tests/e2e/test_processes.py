"""Workers and the control process: who may die, and who notices."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.pods import ask, pod, read_line, visit
from tests.e2e.program import PATIENCE, Program, endpoints, program, service, wait_for, write
from tests.io_uring import every_engine
from tests.measuring import not_while_measured
from tests.ports import free_port

HERE = "127.0.0.1"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_worker_is_replaced(manifests: Path) -> None:
    """Its connections end; those of others don't notice, and none is refused in between."""
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy:
            clients = [socket.create_connection((HERE, port)) for _ in range(40)]
            assert all(read_line(client) == "a" for client in clients)
            wait_for("counted", lambda: uproxy.counts(f"0.0.0.0:{port}/TCP")["flows"] == 40)
            first, second = uproxy.worker_pids()
            os.kill(first, signal.SIGKILL)
            # With two workers about half of these wait for the successor of the killed one.
            assert [visit(HERE, port) for _ in range(20)] == ["a"] * 20
            wait_for("successor", lambda: first not in uproxy.worker_pids())
            assert uproxy.worker_pids()[1] == second
            survivors = sum(echoes(client) for client in clients)
            for client in clients:
                client.close()
            assert 0 < survivors < 40, "each worker had some of 40 connections"
            wait_for("counts", lambda: uproxy.counts(f"0.0.0.0:{port}/TCP")["flows"] == 60)
            assert [each["restarts"] for each in uproxy.status()["workers"]] == [1, 0]


@not_while_measured
@every_engine
def test_a_worker_with_a_ring_has_no_libraries_that_it_does_without(
    manifests: Path, engine: str
) -> None:
    """TLS and uvloop are 6 of 26 MiB. Without a ring a worker has both, and works."""
    with program(manifests, f"--io-uring={engine}") as uproxy:
        for worker in uproxy.status()["workers"]:
            loaded = Path(f"/proc/{worker['pid']}/maps").read_text()
            if engine == "auto":
                assert worker["engine"] == "io_uring"
                assert "libcrypto" not in loaded
                assert "uvloop" not in loaded
            else:
                assert "uvloop" in loaded


def echoes(client: socket.socket) -> bool:
    try:
        client.sendall(b"still there\n")
        return read_line(client) == "still there"
    except ConnectionError:
        return False


def test_all_workers_killed_and_nobody_refused(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy:
            for pid in uproxy.worker_pids():
                os.kill(pid, signal.SIGKILL)
            assert [visit(HERE, port) for _ in range(10)] == ["a"] * 10


def test_a_new_worker_knows_what_the_old_one_was_told(manifests: Path) -> None:
    """Routes that changed, frontends that are paused, and UDP."""
    port, paused = free_port(), free_port()
    both = [
        {"name": "main", "port": 80, "nodePort": port},
        {"name": "udp", "port": 80, "nodePort": port, "protocol": "UDP"},
        {"name": "none", "port": 81, "nodePort": paused},
    ]
    with pod("a") as a, pod("b") as b:
        web = service("web", ports=both)
        udp = endpoints("web", [a], port="udp", protocol="UDP")
        write(manifests, "web.yaml", web, *endpoints("web", [a]), *udp)
        with program(manifests, workers=1) as uproxy:
            write(manifests, "web.yaml", web, *endpoints("web", [b]), *udp)
            wait_for("the new pod", lambda: visit(HERE, port) == "b")
            (pid,) = uproxy.worker_pids()
            os.kill(pid, signal.SIGKILL)
            assert visit(HERE, port) == "b"
            assert ask(HERE, port) == "a hello"
            with pytest.raises(ConnectionRefusedError):
                visit(HERE, paused)
            more = endpoints("web", [a], port="none")
            write(manifests, "more.yaml", *more)
            wait_for("resumed", lambda: uproxy.frontend(f"0.0.0.0:{paused}/TCP")["backends"])
            assert visit(HERE, paused) == "a"


def test_workers_end_with_the_control_process(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy, socket.create_connection((HERE, port)) as client:
            assert read_line(client) == "a"
            pids = uproxy.worker_pids()
            uproxy.process.kill()
            uproxy.process.wait()
            wait_for("the workers' end", lambda: not any(map(alive, pids)))


def test_a_restart_after_kill_takes_over_the_ports(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy:
            client = socket.create_connection((HERE, port))
            assert read_line(client) == "a"
            uproxy.process.kill()
            uproxy.process.wait()
        with client, program(manifests):
            assert visit(HERE, port) == "a"


def test_two_instances_do_not_share_a_port_silently(manifests: Path) -> None:
    """One line says so for all ports, with whom to stop, and so do the notes of the status."""
    port, *others = (free_port() for _ in range(4))
    ports = [{"name": str(each), "port": 80, "nodePort": each} for each in (port, *others)]
    with pod("a") as a:
        slices = [each for p in (port, *others) for each in endpoints("web", [a], port=str(p))]
        write(manifests, "web.yaml", service("web", ports=ports), *slices)
        with program(manifests) as first, program(manifests, ready=False) as second:
            wait_for("status", lambda: second.get(second.metrics, "/healthz")[0] == 200)
            frontend = f"0.0.0.0:{port}/TCP"
            wait_for("failed", lambda: second.frontend(frontend).get("state") == "failed")
            assert "already in use" in second.frontend(frontend)["reason"]
            wait_for("a note", lambda: second.status()["notes"])
            (note,) = second.status()["notes"]
            assert note.startswith(
                f"another uproxy (process {first.process.pid}) has the ports of 4"
            )
            assert second.log.count(note) == 1
            assert "already in use" not in second.log


def test_sigterm_drains(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests, "--drain-timeout", "30s") as uproxy:
            client = socket.create_connection((HERE, port))
            assert read_line(client) == "a"
            uproxy.process.send_signal(signal.SIGTERM)
            wait_for("unready", lambda: uproxy.get(uproxy.health, "/readyz")[0] == 503)
            wait_for("refused", lambda: refused(port))
            client.sendall(b"I am not done\n")
            assert read_line(client) == "I am not done"
            assert uproxy.process.poll() is None
            client.close()
            assert uproxy.process.wait(PATIENCE) == 0


def refused(port: int) -> bool:
    try:
        socket.create_connection((HERE, port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # It was in the queue when the listener was closed.
    return False


def test_drain_timeout_ends_flows_that_do_not(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests, "--drain-timeout", "300ms") as uproxy:
            with socket.create_connection((HERE, port)) as client:
                assert read_line(client) == "a"
                assert uproxy.stop() == 0
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            assert "flows that were cut: 1" in uproxy.log


def test_a_second_signal_hurries(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with (
            program(manifests, "--drain-timeout", "10m") as uproxy,
            socket.create_connection((HERE, port)) as client,
        ):
            assert read_line(client) == "a"
            uproxy.process.send_signal(signal.SIGTERM)
            wait_for("draining", lambda: "draining" in uproxy.log)
            assert uproxy.stop() == 0


def test_a_closed_terminal_drains(manifests: Path) -> None:
    """SIGHUP, however often: a shell that ends sends one, and the kernel another when the shell is
    gone."""
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with (
            program(manifests, "--drain-timeout", "10m") as uproxy,
            socket.create_connection((HERE, port)) as client,
        ):
            assert read_line(client) == "a"
            pids = uproxy.worker_pids()
            uproxy.process.send_signal(signal.SIGHUP)
            wait_for("draining", lambda: "draining" in uproxy.log or not alive(uproxy.process.pid))
            uproxy.process.send_signal(signal.SIGHUP)
            wait_for("unready", lambda: uproxy.get(uproxy.health, "/readyz")[0] == 503)
            wait_for("refused", lambda: refused(port))
            assert echoes(client), "a flow that exists may end by itself"
            client.close()
            assert uproxy.process.wait(20) == 0
            assert not any(map(alive, pids))


@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_a_signal_that_was_ignored_at_the_start_stays_so(manifests: Path, name: str) -> None:
    """A shell without job control starts what it puts in the background with SIGINT ignored: a
    Ctrl-C at that terminal is for others."""
    number = signal.Signals[f"SIG{name}"]
    with program(manifests, wrapper=("sh", "-c", f'trap "" {name}; exec "$@"', "sh")) as uproxy:
        status = Path(f"/proc/{uproxy.process.pid}/status").read_text()
        ignored = int(re.findall(r"SigIgn:\s*(\w+)", status)[0], 16)
        assert ignored >> number - 1 & 1
        uproxy.process.send_signal(number)
        assert uproxy.stop() == 0
        assert uproxy.log.count("draining") == 1


@pytest.mark.parametrize("source", ["manifests", "config"])
def test_a_terminal_that_is_really_closed(manifests: Path, tmp_path: Path, source: str) -> None:
    """What is written to it from then on fails, which harms nobody. With a configuration file, the
    SIGHUP that comes of it is no request to read the file again."""
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text("apiVersion: uproxy.dev/v1alpha1\nkind: UproxyConfiguration\n")
    more = ["--config", str(config)] if source == "config" else []
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        ours, theirs = pty.openpty()
        health, metrics = free_port(), free_port()
        command = [sys.executable, "-m", "uproxy.cli", "run", "--manifests", str(manifests)]
        command += ["--healthz-bind-address", f"{HERE}:{health}", "--workers", "1"]
        command += ["--metrics-bind-address", f"{HERE}:{metrics}", "--claim-addresses", "never"]
        command += ["--preserve-client-ip", "never", "--hostname-override", "here", *more]
        with subprocess.Popen(
            # The program is the leader of a session whose terminal this is, as a shell would be.
            ["setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            uproxy = Program(process, manifests, health, metrics)  # type: ignore[arg-type]
            try:
                wait_for("readyz", lambda: uproxy.get(health, "/readyz")[0] == 200)
                pids = uproxy.worker_pids()
                assert visit(HERE, port) == "a"
                os.close(ours)
                assert process.wait(20) == 0
                assert not any(map(alive, pids))
            finally:
                process.kill()


def test_a_hangup_stays_without_effect_under_nohup(manifests: Path) -> None:
    with program(manifests, wrapper=("nohup",)) as uproxy:
        uproxy.process.send_signal(signal.SIGHUP)
        assert uproxy.stop() == 0
        assert uproxy.log.count("draining") == 1


def test_workers_leave_it_to_their_parent_when_to_end(manifests: Path) -> None:
    """Supervisors may signal every process of a service."""
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests, workers=1) as uproxy:
            (pid,) = uproxy.worker_pids()
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            assert visit(HERE, port) == "a"
            assert uproxy.worker_pids() == [pid]


def test_nothing_is_left_behind(manifests: Path) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests) as uproxy:
            pids = uproxy.worker_pids()
            assert uproxy.stop() == 0
            assert not any(map(alive, pids))
    assert not subprocess.run(
        ["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True
    ).stdout
