"""The commands that ask a running uproxy, each in a process of its own, as users call them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.cli import views
from tests.cli.test_status_client import answering
from tests.e2e.pods import Pod, pod, visit
from tests.e2e.program import PATIENCE, Program, endpoints, program, service, wait_for, write
from tests.nasty import NASTY, is_fit_to_print
from tests.ports import free_port
from tests.terminal import terminal
from uproxy.core.printable import printable

HERE = "127.0.0.1"


class World:
    """A running uproxy with Services in various states."""

    def __init__(self, running: Program, backend: Pod, served: int, taken: int) -> None:
        self.program = running
        self.pod = backend
        self.served = served
        self.taken = taken

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=60, check=False
        )

    def command(self, *words: str) -> list[str]:
        url = f"http://127.0.0.1:{self.program.metrics}"
        return [sys.executable, "-m", "uproxy.cli", *words, "--url", url]


@contextmanager
def world(manifests: Path, *, trouble: bool = True) -> Iterator[World]:
    """A Service that is served and, on request, some that cannot be served."""
    manifests.mkdir()
    served, empty, taken = free_port(), free_port(), free_port()
    with pod("a") as a, socket.create_server((HERE, taken)):
        ports = [{"name": "main", "port": 80, "nodePort": served}]
        web = service("web", ports=ports)
        web["metadata"]["labels"] = {"app": "web", "tier": "front"}
        write(manifests, "web.yaml", web, *endpoints("web", [a]))
        if trouble:
            ports = [
                {"name": "main", "port": 80, "nodePort": empty},
                {"name": "more", "port": 81, "nodePort": taken},
            ]
            write(
                manifests,
                "odd.yaml",
                service("odd", ports=ports),
                *endpoints("odd", [a], port="more"),
                service("outside", type="ExternalName", externalName="www.example.com", ports=[]),
            )
            (manifests / "bad.yaml").write_text("kind: Service\napiVersion: v1\nmetadata: [\n")
        options = ("--nodeport-addresses", "localhost")
        with program(manifests, *options, ready=not trouble) as running:
            wait_for("the first Service", lambda: reached(served))
            yield World(running, a, served, taken)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One uproxy for all tests that do not change it."""
    with world(tmp_path_factory.mktemp("world") / "manifests") as running:
        yield running


def reached(port: int) -> bool:
    try:
        return visit(HERE, port) == "a"
    except OSError:
        return False


def test_status(here: World) -> None:
    done = here.call("status")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0].startswith("Node here: not ready; 3 frontends (1 serving, 1 paused, 1 fail")
    assert "SERVICE KIND FRONTEND STATE BACKENDS FLOWS REASON" in lines
    assert f"default/web NodePort 127.0.0.1:{here.served}/TCP serving 1 " in " ".join(lines)
    assert any(
        line.startswith(f"default/odd NodePort 127.0.0.1:{here.taken}/TCP failed 1 0 TCP port")
        for line in lines
    )
    assert any(line.startswith("default/outside type is ExternalName") for line in lines)
    assert any("bad.yaml:" in line for line in lines)
    assert "\x1b" not in done.stdout


def test_status_with_filters(here: World) -> None:
    paused = here.call("status", "--state", "paused").stdout.splitlines()
    assert len(paused) == 2
    assert "no endpoints" in paused[1]
    assert here.call("status", "--state", "conflict").stdout == (
        "No frontend has the state conflict.\n"
    )
    rows = here.call("status", "web", "--no-headers").stdout.splitlines()
    assert [line.split()[0] for line in rows] == ["default/web"]
    assert here.call("status", "svc/web", "-A", "-o", "name").stdout == "default/web\n"
    found = here.call("status", "-l", "tier in (front)", "-o", "name").stdout
    assert found == "default/web\n"
    assert here.call("status", "-l", "tier=back").stdout == (
        "No Service has labels that match tier=back.\n"
    )


@pytest.mark.parametrize(
    "words",
    [["status"], ["status", "-w"], ["status", "-w", "-o", "json"], ["top"], ["top", "--once"]],
    ids=" ".join,
)
def test_a_namespace_that_does_not_exist(here: World, words: list[str]) -> None:
    done = here.call(*words, "-n", "defualt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "uproxy: no Service is in the namespace defualt; did you mean default?\n"
    )


def test_what_scripts_read(here: World) -> None:
    template = '{range .frontends[?(@.state=="serving")]}{.service}{"\\t"}{.port}{"\\n"}{end}'
    done = here.call("status", "-o", f"jsonpath={template}")
    assert done.stdout == f"default/web\t{here.served}\n"
    said = yaml.safe_load(here.call("status", "web", "-o", "yaml").stdout)
    assert [each["port"] for each in said["frontends"]] == [here.served]
    said = json.loads(here.call("top", "--once", "-o", "json").stdout)
    ports = [f"{each['service']}:{each['port']}" for each in said["servicePorts"]]
    assert ports[-1] == "default/web:main"
    assert said["seconds"] > 0


@pytest.mark.parametrize(
    "words", [["status", "web", "-w"], ["top", "web"]], ids=lambda words: str(words[0])
)
def test_one_document_per_line(here: World, words: list[str]) -> None:
    """Each line comes at once, also in a pipe; and a reader that has enough may go."""
    command = here.command(*words, "-o", "json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert first.keys() == second.keys() & {"frontends", "servicePorts", *first}
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(PATIENCE)


def test_status_as_json_is_what_the_server_says(here: World) -> None:
    done = here.call("status", "-o", "json", "-n", "default")
    said = json.loads(done.stdout)
    assert {each["service"] for each in said["frontends"]} == {"default/web", "default/odd"}
    assert "\n  " in done.stdout, "for people too"


def test_status_as_a_check(here: World, tmp_path: Path) -> None:
    assert here.call("status", "--check").returncode == 1
    with world(tmp_path / "manifests", trouble=False) as ready:
        done = ready.call("status", "--check")
        assert done.returncode == 0, done.stdout


def test_a_closed_pipe_is_not_an_error(here: World) -> None:
    process = subprocess.Popen(
        here.command("status"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(PATIENCE)


def test_explain(here: World) -> None:
    done = here.call("explain", "web")
    assert done.returncode == 0
    assert done.stdout.startswith("default/web is served on its only frontend.\n")
    assert f" {here.pod.address}:{here.pod.port} " in done.stdout
    done = here.call("explain", "default/odd")
    assert done.returncode == 0
    assert done.stdout.startswith("default/odd is not served on any frontend.\n")
    assert "kubernetes.io/service-name=odd" in done.stdout
    assert f"ss -Hptln 'sport = :{here.taken}'" in done.stdout
    done = here.call("explain", "outside", "-n", "default")
    assert done.stdout.startswith("default/outside is not served: type is ExternalName")


def test_explain_as_json(here: World) -> None:
    said = json.loads(here.call("explain", "odd", "-o", "json").stdout)
    assert {each["service"] for each in said["frontends"]} == {"default/odd"}


def test_explain_an_unknown_service(here: World) -> None:
    done = here.call("explain", "wbe")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        'uproxy: no Service default/wbe; "uproxy status" lists the 3 Services that it '
        'knows; 1 object cannot be used, as "uproxy status" shows\n'
    )
    done = here.call("explain", "prod/web")
    assert "did you mean default/web?" in done.stderr
    assert done.returncode == 1


def test_top_counts_what_happens_in_a_second(here: World) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    looking = threading.Thread(target=lambda: done.append(here.call("top", "--once")))
    looking.start()
    while looking.is_alive():
        visit(HERE, here.served)
    looking.join()
    assert done[0].returncode == 0
    head, total, first = [line.split() for line in done[0].stdout.splitlines()][:3]
    assert head[:4] == ["SERVICE", "PORT", "FLOWS/s", "ACTIVE"]
    assert first[0] == "default/web:main/TCP"
    assert total[0] == "all"
    assert total[1] == first[1] != "0"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param(["status", "-w"], "default/web", id="status"),
        pytest.param(["top"], "default/web:main/TCP", id="top"),
    ],
)
def test_watching_on_a_terminal(here: World, words: list[str], shown: str) -> None:
    with terminal(here.command(*words)) as (process, screen):
        screen.wait_for(shown)
        screen.wait_for("default/web")  # Drawn once more, at least in part.
        process.send_signal(signal.SIGINT)
        screen.to_the_end()
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in screen.text
        assert screen.text.endswith("\x1b[?25h\x1b[?1049l"), "the terminal is as it was"


@pytest.mark.parametrize("words", [["status"], ["status", "-w"], ["top"]], ids=" ".join)
@pytest.mark.parametrize("text", [NASTY["title of the window"], "\x1b[31mred", "[red]x[/]"])
def test_answers_of_a_server_cannot_harm_a_terminal(words: list[str], text: str) -> None:
    status = views.status(node=text, frontends=[views.frontend(f"{text}/{text}")])
    with answering(200, msgspec.json.encode(status), []) as url:
        command = [sys.executable, "-m", "uproxy.cli", *words, "--url", url]
        with terminal(command) as (process, screen):
            screen.wait_for(printable(text))
            if words != ["status"]:
                process.send_signal(signal.SIGINT)
            screen.to_the_end()
            assert process.wait(PATIENCE) == 0
    assert text == printable(text) or text not in screen.text


def test_the_log_is_fit_to_print(tmp_path: Path) -> None:
    """Names of files, values in them, and names of ports."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    texts = [text for name, text in NASTY.items() if name not in ("null", "surrogate")]
    for number, text in enumerate(texts):
        (manifests / f"{number}{text}.json").write_text(json.dumps({"kind": text}))
        ports = [{"name": text, "port": 80, "nodePort": free_port()}]
        bad = service(f"web{number}", ports=ports, externalIPs=[text])
        bad["metadata"]["annotations"] = {"uproxy.dev/balancer": text}
        (manifests / f"{number}.json").write_text(json.dumps(bad))
    with program(manifests, ready=False) as uproxy:
        wait_for("the last one", lambda: f"web{len(texts) - 1}:" in uproxy.log)
        uproxy.stop()
        assert is_fit_to_print(uproxy.log)


def test_a_json_log_has_only_json(tmp_path: Path) -> None:
    """From the first line to the last; there is a warning about the limit on open files, too."""
    (tmp_path / "manifests").mkdir()
    few = ["sh", "-c", 'ulimit -n 1024 && exec "$0" "$@"']
    with program(tmp_path / "manifests", "--log-format", "json", wrapper=few) as uproxy:
        wait_for("the warning", lambda: "LimitNOFILE" in uproxy.log)
        assert uproxy.stop() == 0
        said = [json.loads(line) for line in uproxy.log.splitlines()]
    assert {frozenset(each) for each in said} == {frozenset(("time", "level", "logger", "message"))}


def test_status_on_a_terminal_has_colours_and_fits(here: World) -> None:
    with terminal(here.command("status")) as (process, screen):
        screen.to_the_end()
        assert process.wait(PATIENCE) == 0
        assert "\x1b[32mserving" in screen.text
        assert "\x1b[31mfailed" in screen.text
        for line in screen.text.splitlines():
            bare = line
            for code in ("31", "32", "33", "36", "0"):
                bare = bare.replace(f"\x1b[{code}m", "")
            assert len(bare) <= 80 or "bad.yaml" in bare, bare


def test_watching_survives_the_end_of_uproxy(tmp_path: Path) -> None:
    with (
        world(tmp_path / "manifests", trouble=False) as ending,
        terminal(ending.command("status", "-w")) as (process, screen),
    ):
        screen.wait_for("default/web")
        ending.program.stop()
        screen.wait_for("Trying again")
        process.send_signal(signal.SIGINT)
        screen.to_the_end()
        assert process.wait(PATIENCE) == 0


def test_doctor() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uproxy.cli", "doctor", "-o", "json", "--max-flows", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, "the tests run here, so uproxy does"
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert {found[name]["result"] for name in ("python", "uvloop", "epoll")} == {"ok"}
