"""Workers that hang, starve or cannot be started: who notices, and what clients see."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
from pathlib import Path

import pytest

import uproxy as package
from tests.e2e.pods import pod, read_line, visit
from tests.e2e.program import endpoints, program, service, wait_for, write
from tests.e2e.test_processes import alive
from tests.io_uring import every_engine
from tests.ports import free_port

HERE = "127.0.0.1"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory


def limited(descriptors: int) -> list[str]:
    """A program with at most so many."""
    return ["prlimit", f"--nofile={descriptors}:{descriptors}"]


def test_a_worker_is_replaced_though_few_descriptors_are_free(manifests: Path) -> None:
    """Not one for each listener; this is what `RESERVED_DESCRIPTORS` leaves."""
    ports = [free_port() for _ in range(350)]
    numbered = [{"name": f"p{port}", "port": port, "nodePort": port} for port in ports]
    with pod("a") as a:
        # A Service gets a quarter of the descriptors at most.
        for first in range(0, 350, 50):
            some = service(f"web{first}", ports=numbered[first : first + 50])
            write(manifests, f"web{first}.yaml", some)
        write(manifests, "pods.yaml", *endpoints("web300", [a], port=f"p{ports[-1]}"))
        with program(manifests, workers=1, wrapper=limited(600)) as uproxy:
            assert visit(HERE, ports[-1]) == "a"
            (pid,) = uproxy.worker_pids()
            os.kill(pid, signal.SIGKILL)
            wait_for("successor", lambda: uproxy.worker_pids() != [pid])
            assert visit(HERE, ports[-1]) == "a"
            assert uproxy.process.poll() is None


def test_a_control_process_without_descriptors_replaces_a_worker_when_it_can(
    manifests: Path,
) -> None:
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests, workers=1) as uproxy:
            (worker,) = uproxy.worker_pids()
            control = uproxy.process.pid
            before = resource.prlimit(control, resource.RLIMIT_NOFILE)
            resource.prlimit(control, resource.RLIMIT_NOFILE, (3, before[1]))
            os.kill(worker, signal.SIGKILL)
            wait_for("failure", lambda: "could not be started" in uproxy.log)
            with socket.create_connection((HERE, port)) as waiting:
                resource.prlimit(control, resource.RLIMIT_NOFILE, before)
                assert read_line(waiting) == "a"
            assert "Traceback" not in uproxy.log


def test_a_worker_full_of_flows_hears_what_is_said_to_it(manifests: Path) -> None:
    """Descriptors that come with a message are lost where none is free, but not the message."""
    ports = [free_port() for _ in range(40)]
    first = [{"name": "main", "port": 80, "nodePort": ports[0]}]
    rest = [{"name": f"p{port}", "port": port, "nodePort": port} for port in ports[1:]]
    last = f"p{ports[-1]}"
    with pod("a") as a, contextlib.ExitStack() as clients:
        write(manifests, "web.yaml", service("web", ports=first), *endpoints("web", [a]))
        with program(manifests, workers=1, wrapper=limited(400)) as uproxy:
            for _ in range(250):
                clients.enter_context(socket.create_connection((HERE, ports[0])))
            (pid,) = uproxy.worker_pids()
            wait_for("full", lambda: len(os.listdir(f"/proc/{pid}/fd")) > 250)
            more = [service("more", ports=rest), *endpoints("more", [a], port=last)]
            write(manifests, "more.yaml", *more)
            address = f"0.0.0.0:{ports[-1]}/TCP"
            wait_for("told", lambda: uproxy.frontend(address).get("state") == "serving")
            clients.close()
            assert visit(HERE, ports[-1]) == "a"
            assert uproxy.worker_pids() == [pid]
            wait_for("ready", lambda: uproxy.get(uproxy.health, "/readyz")[0] == 200)


@every_engine
def test_a_worker_that_is_stopped_is_noticed_and_replaced(manifests: Path, engine: str) -> None:
    """It is not ready after 5 s; after 10 s clients that wait are served by its successor."""
    port = free_port()
    ports = [{"name": "main", "port": 80, "nodePort": port}]
    with pod("a") as a:
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests, f"--io-uring={engine}", workers=1) as uproxy:
            (pid,) = uproxy.worker_pids()
            with socket.create_connection((HERE, port)) as client:
                assert read_line(client) == "a"
                os.kill(pid, signal.SIGSTOP)
                with socket.create_connection((HERE, port), timeout=60) as waiting:
                    wait_for("not ready", lambda: uproxy.get(uproxy.health, "/readyz")[0] == 503)
                    assert "worker 0 has not answered" in uproxy.status()["notReady"][0]
                    assert uproxy.get(uproxy.health, "/healthz")[0] == 503
                    assert uproxy.get(uproxy.health, "/livez")[0] == 200
                    assert uproxy.worker_pids() == [pid]
                    assert read_line(waiting) == "a"
                # Its flows have not ended as if they were complete.
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            wait_for("ready", lambda: uproxy.get(uproxy.health, "/readyz")[0] == 200)
            assert not alive(pid)


def test_a_stopped_worker_does_not_outlive_the_control_process(manifests: Path) -> None:
    """It would keep its ports, and clients in their queues."""
    with program(manifests) as uproxy:
        pids = uproxy.worker_pids()
        os.kill(pids[0], signal.SIGSTOP)
        uproxy.process.kill()
        uproxy.process.wait()
        wait_for("the workers' end", lambda: not any(map(alive, pids)))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A uproxy whose workers fail as soon as they are started."""
    tree = tmp_path / "broken"
    shutil.copytree(Path(package.__file__).parent, tree / "uproxy")
    (tree / "uproxy" / "dataplane" / "program.py").write_text("raise ImportError('no such thing')")
    return tree


def test_a_node_on_which_no_worker_can_start_says_so(manifests: Path, broken: Path) -> None:
    wrapper = ["env", f"--chdir={broken}", "--unset=PYTHONSAFEPATH"]
    with program(manifests, ready=False, wrapper=wrapper) as running:
        wait_for("a look", lambda: running.get(running.health, "/healthz")[0])
        assert running.get(running.health, "/readyz")[0] == 503
        trouble = "worker not serving as it should: 2"
        wait_for("out", lambda: trouble in running.get(running.health, "/readyz")[1])
        assert running.get(running.health, "/healthz")[0] == 503
        assert "worker 0 exited with code 1" in str(running.status()["notReady"])

        def reasons() -> list[str]:
            return [each["reason"] for each in running.status()["workers"]]

        assert all("exited with code 1" in each for each in reasons())
        wait_for("more attempts", lambda: all("times in a row" in each for each in reasons()))
        assert running.process.poll() is None
