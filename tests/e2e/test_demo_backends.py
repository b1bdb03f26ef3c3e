"""The real `uproxy demo --backends`: manifests of one's own answer, as those in examples/ do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.program import service, wait_for
from tests.e2e.test_demo import HERE, Demo, free_offset, get, running, start
from tests.nasty import NASTY, is_fit_to_print
from tests.ports import free_port
from uproxy.demo import cluster
from uproxy.sources.manifests.survey import survey

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = re.compile(r"^#     ((?:curl|dig|for) .*)$", re.MULTILINE)
"""In a comment of an example."""
COMMANDS = [
    pytest.param(command, id=f"{path.stem}: {command}")
    for path in sorted(EXAMPLES.glob("*.yaml"))
    for command in COMMAND.findall(path.read_text())
    if "http.server" not in command  # That starts servers.
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    objects = survey(sorted(EXAMPLES.glob("*.yaml"))).catalog.objects()
    taken = cluster.first_taken(
        [one for one in cluster.frontends(objects) if one[0].address.startswith("127.")]
    )
    if taken is not None:
        pytest.skip(f"the examples cannot be served here: {taken}")
    with running(tmp_path_factory.mktemp("demo"), "--backends", str(EXAMPLES)) as demo:
        yield demo


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_in_the_examples_work(examples: Demo, command: str) -> None:
    program = "dig" if command.startswith("dig") else "curl"
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    done = subprocess.run(
        ["sh", "-ec", command], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    if "/healthz" in command:
        assert done.stdout.startswith("HTTP/1.1 200 OK")
    elif program == "dig":
        assert done.stdout == '"127.0.0.11:9053"\n'
    else:
        assert done.stdout
        for line in done.stdout.splitlines():
            assert re.fullmatch(r"You've hit (127\.0\.0\.1[1-3]|\[::1\]):9000", line)


def test_every_suggested_command_of_the_examples_works(examples: Demo) -> None:
    commands = re.findall(r"^  curl (?:-i )?'?(http\S+?)'?  +# (.*)$", examples.text, re.MULTILINE)
    assert len(commands) >= 10
    assert {get(url)[0] for url, _ in commands} == {200}


def test_the_only_node_is_this_one(examples: Demo) -> None:
    row = next(line for line in examples.text.splitlines() if " health check " in line)
    assert " ".join(row.split()) == "default/local health check 127.0.0.1:32082/TCP 1 local pod"


class Manifests:
    """A directory with one Service, whose endpoints change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.backend = free_port()
        ports = [{"name": "main", "port": 80, "nodePort": self.port}]
        self.write("service", [service("web", ports=ports)])

    def write(self, name: str, documents: list[dict[str, Any]]) -> None:
        (self.directory / f"{name}.yaml").write_text(yaml.safe_dump_all(documents))

    def endpoints(self, *addresses: str, name: str = "") -> None:
        target = {"targetRef": {"kind": "Pod", "name": name}} if name else {}
        metadata = {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}
        found = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "ports": [{"name": "main", "port": self.backend}],
            "endpoints": [{"addresses": [each], **target} for each in addresses],
        }
        self.write("endpoints", [found])

    def visit(self) -> str:
        """The answer; "" if the pod has just ended."""
        try:
            return get(f"http://{HERE}:{self.port}/")[1]
        except OSError:
            return ""


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    directory = tmp_path / "manifests"
    directory.mkdir()
    return Manifests(directory)


def test_backends_come_and_go_with_the_manifests(tmp_path: Path, manifests: Manifests) -> None:
    manifests.endpoints("127.0.9.1", name="first")
    with running(tmp_path, "--backends", str(manifests.directory)) as demo:
        assert manifests.visit() == "You've hit first\n"
        manifests.endpoints("127.0.9.2")
        second = f"You've hit 127.0.9.2:{manifests.backend}\n"
        wait_for("the second pod", lambda: manifests.visit() == second)
        assert f"Edit:  {manifests.directory} (changes take effect at once)" in demo.text


def test_what_has_no_backend_is_said(tmp_path: Path, manifests: Manifests) -> None:
    manifests.endpoints("127.0.9.1", "192.0.2.7")
    with running(tmp_path, "--backends", str(manifests.directory)) as demo:
        first = f"You've hit 127.0.9.1:{manifests.backend}\n"
        assert {manifests.visit() for _ in range(4)} == {first}, "the other one is not used"
        line = (
            f"No backend for 192.0.2.7:{manifests.backend}/TCP: "
            "this machine does not have the address; any of 127.0.0.0/8 will do."
        )
        assert line in demo.text.splitlines()


def test_what_is_wrong_with_manifests_is_said(tmp_path: Path, manifests: Manifests) -> None:
    (manifests.directory / "service.yaml").write_text("apiVersion: v1\nkind: Services\n")
    (manifests.directory / "odd.yaml").write_text("[")
    with running(tmp_path, "--backends", str(manifests.directory)) as demo:
        assert "No Service of these manifests can be served." in demo.text
        assert f"{manifests.directory}/odd.yaml:" in demo.text
        assert 'kind: "Services" is not a kind that Kubernetes has' in demo.text
        assert not {"Try:", "SERVICE"} & set(demo.text.split())


def test_names_that_harm_terminals(tmp_path: Path, manifests: Manifests) -> None:
    manifests.endpoints("127.0.9.1", name=NASTY["escape sequence"])
    ports = [{"name": NASTY["escape sequence"], "port": 80, "nodePort": free_port()}]
    manifests.write("odd", [service("odd", ports=ports)])
    with running(tmp_path, "--backends", str(manifests.directory)) as demo:
        assert is_fit_to_print(manifests.visit())
        assert is_fit_to_print(demo.text)


def test_it_fits_on_a_narrow_terminal(tmp_path: Path, manifests: Manifests) -> None:
    manifests.endpoints("192.0.2.7", "192.0.2.8", "192.0.2.9")
    many = {"type": "ExternalName", "externalName": "x"}
    manifests.write("more", [service(f"external-{n}", ports=[], **many) for n in range(3)])
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    offset = str(free_offset(tmp_path))
    options = ("--backends", str(manifests.directory), "--port-offset", offset)
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "uproxy.cli", "demo", *options, "--exit-after", "1ms"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environ
    ) as process:
        os.close(theirs)
        text = ""
        with contextlib.suppress(OSError):  # EIO: the terminal has no other end any more.
            while some := os.read(ours, 65536):
                text += some.decode()
        os.close(ours)
        assert process.wait(60) == 0
    lines = text.splitlines()
    assert "SERVICE" in lines[0]
    assert any("external-2 is not served" in line for line in lines)
    assert any(line.startswith("No backend for 192.0.2.7") for line in lines)
    about_paths = ("Edit:", "Look:", "       ")
    assert max(len(line) for line in lines if not line.startswith(about_paths)) <= 80


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    stdout, stderr = start("--backends", str(tmp_path / "nothing")).communicate(timeout=60)
    assert stderr == f"uproxy: {tmp_path}/nothing: no such file or directory\n"
    assert stdout == ""
