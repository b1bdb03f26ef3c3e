"""The commands of the README and of the tour work as they are pasted, in their order.

They use the usual ports, so this takes a network of its own, which test processes have as root.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.deploy.builder import NETWORK
from tests.e2e.program import PATIENCE, wait_for
from tests.isolation import network_of_the_machine

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
TOUR: Final = ROOT / "docs" / "tour.md"
NODEPORT: Final = ROOT / "examples" / "nodeport.yaml"
READY: Final = "http://127.0.0.1:10256/readyz"

INSTALL: Final = ("python3 -m venv ~/uproxy", "~/uproxy/bin/pip install '.[cluster]'")
ACTIVATE: Final = ". ~/uproxy/bin/activate"
"""What the README begins with. The commands that follow use what this has installed."""
SERVERS: Final = {
    "make demo",
    "uproxy demo",
    "uproxy run --manifests examples/",
    "uproxy demo --backends examples/",
}
"""What runs until Ctrl-C, and is asked by the commands that follow."""
ENDLESS: Final = {"uproxy top": "SERVICE PORT"}
"""What shows something until Ctrl-C, and how its first line begins."""
RESET: Final = "curl -sS http://127.0.0.1:30080"
"""Fails in the tour. The reset comes before curl has seen the connection, or after that."""
EXIT_CODES: Final = {RESET: {7, 52, 56}}
"""Of commands that are meant to fail; others have to succeed."""
ELSEWHERE: Final = {
    "make test": "it runs this test",
    "uproxy run": "tests/e2e/test_kubernetes.py runs it with a cluster",
    "uproxy run --lb-pool 192.168.1.240-192.168.1.250": "tests/netns has such pools",
}
_NOT_PASTED: Final = ("UPROXY_", "MAKE", "MFLAGS", "ARGS")
"""What variables begin with that people do not have who follow the README: `make test ARGS=...`
sets some."""
ENVIRONMENT: Final = {
    **{name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASTED)},
    # As after `. .venv/bin/activate`.
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


class Command(NamedTuple):
    line: str
    output: str
    """How its output begins, if the README shows it."""


def commands(text: str) -> Iterator[Command]:
    """What is in the indented blocks. If lines of a block begin with "$", they are the commands,
    and the others are output."""
    for indented, lines in groupby(text.splitlines(), lambda line: line.startswith("    ")):
        block = [re.sub(r" +# .*", "", line.strip()) for line in lines] if indented else []
        if any(line.startswith("$ ") for line in block):
            for line, output in zip(block, [*block[1:], ""], strict=True):
                if line.startswith("$ "):
                    yield Command(line[2:], output)
        else:
            yield from (Command(line, "") for line in block)


def transcript(text: str) -> Iterator[Command]:
    """What is in the blocks of a terminal, with the first word of the output: what follows differs
    from run to run."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line, word in re.findall(r"^\$ (.*)\n(\S+)", block, re.MULTILINE):
            yield Command(line, word)


COMMANDS: Final = list(commands(README.read_text()))
TOURED: Final = list(transcript(TOUR.read_text()))


def test_commands_are_found() -> None:
    text = "Do\n\n    a  # b\n    c\n\nor\n\n    $ d\n    answer\n    more\n"
    assert list(commands(text)) == [Command("a", ""), Command("c", ""), Command("d", "answer")]
    assert len(COMMANDS) > 12


def test_all_that_is_said_to_be_run_elsewhere_is_in_the_readme() -> None:
    lines = {each.line for each in COMMANDS}
    assert lines >= SERVERS | ELSEWHERE.keys() | ENDLESS.keys()


def test_the_readme_begins_with_the_installation() -> None:
    assert tuple(each.line for each in COMMANDS[:3]) == (*INSTALL, ACTIVATE)


def test_commands_of_transcripts_are_found() -> None:
    text = "```console\n$ a\nno more\n\nrows\n$ b c\nd\n```\n\n```yaml\n$ e\nf\n```\n"
    assert list(transcript(text)) == [Command("a", "no"), Command("b c", "d")]
    lines = [each.line for each in TOURED]
    assert RESET in lines
    assert sum(line in SERVERS for line in lines) == 2
    assert len(lines) == TOUR.read_text().count("\n$ ")


@contextmanager
def own_session(line: str, end: signal.Signals = signal.SIGINT) -> Iterator[subprocess.Popen[str]]:
    """A command whose processes end with the context, by Ctrl-C or another signal."""
    process = subprocess.Popen(
        ["sh", "-ec", line],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, end)
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def server(line: str) -> Iterator[None]:
    with own_session(line) as process:
        wait_for(line, lambda: process.poll() is not None or answers(READY))
        assert process.poll() is None, process.communicate()[0]
        yield


def check(command: Command) -> None:
    """Run a command that ends."""
    done = subprocess.run(
        ["sh", "-ec", command.line],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout or done.stderr
    expected = EXIT_CODES.get(command.line, {0})
    assert done.returncode in expected, f"{command.line}: {done.stdout}{done.stderr}"
    assert output, command.line
    # Names of pods end in letters that differ, and another pod may come first.
    start = re.sub(r"(?<=\W)[\w.:]*$", "", command.output)
    assert output.startswith(start), f"{command.line}: {output}"


@pytest.fixture
def usual_ports() -> None:
    """Skips the test where they are taken."""
    for port in (10249, 10256, 30080, 30123):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"port {port} is taken")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does what the README begins with, in a home directory of its own. Commands then find what
    this has installed before anything else."""
    monkeypatch.setitem(ENVIRONMENT, "HOME", str(tmp_path))
    with network_of_the_machine():  # To get packages from an index.
        for line in INSTALL:
            words = ["sh", "-ec", line]
            done = subprocess.run(
                words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
            )
            if done.returncode and any(each in done.stderr for each in NETWORK):
                pytest.skip(f"packages cannot be had here: {done.stderr[-300:]}")
            assert done.returncode == 0, f"{line}: {done.stderr}"
    path = f"{tmp_path}/uproxy/bin:{ENVIRONMENT['PATH']}"
    monkeypatch.setitem(ENVIRONMENT, "PATH", path)


@pytest.mark.usefixtures("usual_ports", "installed")
@pytest.mark.timeout(300)
def test_the_commands_of_the_readme_work_as_pasted() -> None:
    check_as_pasted([each for each in COMMANDS if each.line not in (*INSTALL, ACTIVATE)])


@pytest.mark.usefixtures("usual_ports")
def test_the_commands_of_the_tour_work_as_pasted() -> None:
    check_as_pasted(TOURED)


def check_as_pasted(pasted: list[Command]) -> None:
    if subprocess.run(["make", "--question", ".venv/.ready"], cwd=ROOT, check=False).returncode:
        pytest.skip("make would install first")
    with contextlib.ExitStack() as stack:
        for command in pasted:
            if command.line in SERVERS:
                stack.close()  # "Stop the demo before you go on."
                stack.enter_context(server(command.line))
            elif command.line in ENDLESS:
                with own_session(command.line) as process:
                    assert process.stdout is not None
                    assert process.stdout.readline().startswith(ENDLESS[command.line])
            elif command.line not in ELSEWHERE:
                check(command)


@pytest.mark.usefixtures("usual_ports")
def test_servers_of_ones_own_for_the_examples() -> None:
    """As the comment at the top of the example says."""
    run, servers = re.findall(
        r"^#     ((?:uproxy run|for) .*)$", NODEPORT.read_text(), re.MULTILINE
    )
    # A shell without job control makes what it starts in the background ignore SIGINT.
    with server(run), own_session(f"{servers}; wait", signal.SIGTERM):
        wait_for("the servers", lambda: answers("http://127.0.0.1:30080/"))
