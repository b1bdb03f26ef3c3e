"""The entry point: bad input is one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ports import free_port
from uproxy import __version__
from uproxy.cli import main, uproxy


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


Enter = Callable[..., Done]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Enter:
    """Calls the function that the `uproxy` script calls."""

    def call(*words: str, **variables: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["uproxy", *words])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    return call


def run(*words: str) -> Done:
    """Runs `uproxy` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "uproxy.cli", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param(
            ["run", "--workers", "many"],
            'uproxy run: --workers: "many" is not a whole number; give 1 to ',
            id="no number",
        ),
        pytest.param(
            ["run", "--udp-timeout", "soon"], 'uproxy run: --udp-timeout: "soon"', id="no time"
        ),
        pytest.param(
            ["run", "--balancer", "rnadom"],
            'uproxy run: --balancer: "rnadom" is not ',
            id="no such word",
        ),
        pytest.param(
            ["run", "--metrics-bind-address", "here"],
            'uproxy run: --metrics-bind-address: "here"',
            id="no address",
        ),
        pytest.param(["run", "--wrokers", "2"], "uproxy run: No such option", id="no such flag"),
        pytest.param(
            ["demo", "--port-offset", "99999"],
            'uproxy demo: --port-offset: "99999" is out of range; give -1023 to 30000',
            id="demo",
        ),
        pytest.param(
            ["status", "--state", "idle"], "uproxy status: Invalid value", id="no such state"
        ),
        pytest.param(
            ["status", "--url", "ftp://x"],
            'uproxy status: Invalid value for --url: "ftp://x" is not a URL; give one like http://',
            id="no such URL",
        ),
        pytest.param(
            ["status", "-w", "--check"], "uproxy status: --watch cannot be combined", id="watch"
        ),
        pytest.param(["status", "-o", "xml"], "uproxy status: Invalid value", id="no such format"),
        pytest.param(["status", "-l", "a is b"], "uproxy status: Invalid value", id="no selector"),
        pytest.param(["top", "-A", "-n", "b"], "uproxy top: -A and -n", id="all and one"),
        pytest.param(["explain"], "uproxy explain: Missing argument", id="explain what"),
        pytest.param(
            ["explain", "a/b/c"], 'uproxy explain: "a/b/c" is not the name of a Service', id="name"
        ),
        pytest.param(
            ["explain", "-n", "b", "a/web"],
            "uproxy explain: a/web and -n b name different namespaces",
            id="two namespaces",
        ),
        pytest.param(["doctor", "--max-flows", "0"], "uproxy doctor: --max-flows", id="doctor"),
        pytest.param(["stauts"], 'uproxy: no command "stauts"; did you mean "status"?', id="typo"),
        pytest.param(["ex"], 'uproxy: no command "ex"; did you mean "explain"?', id="beginning"),
        pytest.param(
            ["xyzzy"], 'uproxy: no command "xyzzy"; the commands are run, demo, ', id="no idea"
        ),
        pytest.param(["--vresion"], "uproxy: No such option", id="no such flag of all"),
        pytest.param(["help", "stauts"], 'uproxy: no command "stauts"; did you', id="help of what"),
        pytest.param(
            ["completion"],
            "uproxy completion: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish",
            id="which shell",
        ),
        pytest.param(["completion", "csh"], "uproxy completion: Invalid value", id="no such shell"),
        pytest.param(
            ["get", "svc"], 'uproxy: there is no "get" here; use "uproxy status"\n', id="get"
        ),
    ],
)
def test_bad_input_is_one_line(enter: Enter, words: Sequence[str], line: str) -> None:
    done = enter(*words)
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.code == 2
    assert done.stdout == ""


def test_bad_input_is_one_line_for_the_program_too() -> None:
    done = run("run", "--workers", "many")
    assert done.stderr.startswith('uproxy run: --workers: "many" is not a whole number; give 1 to ')
    assert done.stderr.count("\n") == 1
    assert done.code == 2


def test_a_missing_file() -> None:
    done = run("run", "--manifests", "/nowhere/at/all", "--workers", "1")
    assert done.stderr.splitlines()[-1] == "uproxy: /nowhere/at/all: no such file or directory"
    assert "Traceback" not in done.stderr
    assert done.code == 2


def test_a_variable_is_named_where_it_is_wrong(enter: Enter) -> None:
    done = enter("run", UPROXY_WORKERS="many")
    assert done.stderr.startswith('uproxy run: UPROXY_WORKERS: "many" is not a whole number')
    assert done.code == 2


def test_a_taken_port_is_one_line_with_hard_fail(tmp_path: Path) -> None:
    """Task groups wrap the error."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = ["--bind-address-hard-fail", "--healthz-bind-address", ""]
        options += ["--metrics-bind-address", f"127.0.0.1:{port}", "--workers", "1"]
        done = run("run", "--manifests", str(tmp_path), *options)
    assert done.stderr.splitlines()[-1] == (
        f"uproxy: TCP port {port} on 127.0.0.1 is already in use by another process"
    )
    assert "Traceback" not in done.stderr
    assert done.code == 2


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["status"], id="status"),
        pytest.param(["status", "-w"], id="status, watched"),
        pytest.param(["status", "-o", "json"], id="status as JSON"),
        pytest.param(["status", "-w", "-o", "json"], id="status as JSON, watched"),
        pytest.param(["top", "-o", "json"], id="top as JSON"),
        pytest.param(["status", "--check"], id="status, checked"),
        pytest.param(["top"], id="top"),
        pytest.param(["top", "--once"], id="top, once"),
        pytest.param(["explain", "web"], id="explain"),
    ],
)
def test_no_uproxy_answers(enter: Enter, words: Sequence[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = enter(*words, UPROXY_URL=url)
    assert done.stderr.startswith(f"uproxy: no uproxy answers at {url} (connection refused); ")
    assert done.stderr.count("\n") == 1
    assert done.code == 2
    assert done.stdout == ""


def test_help_names_every_command(enter: Enter) -> None:
    done = enter("--help")
    assert done.code == 0
    for name in ("run", "demo", "status", "top", "explain", "doctor", "cleanup", "version"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", list(uproxy.list_commands(None)))  # type: ignore[arg-type]
def test_every_command_has_help_that_fits(enter: Enter, name: str) -> None:
    done = enter(name, "--help")
    assert done.code == 0
    assert done.stdout.startswith(f"Usage: uproxy {name} ")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version(enter: Enter) -> None:
    done = enter("version")
    assert done.code == 0
    assert done.stdout.startswith(f"uproxy {__version__}\n")
    assert enter("--version") == Done(0, f"uproxy {__version__}\n", "")


def test_help_of_everything(enter: Enter) -> None:
    assert enter("help") == enter("--help")


@pytest.mark.parametrize("name", list(uproxy.list_commands(None)))  # type: ignore[arg-type]
def test_help_of_a_command(enter: Enter, name: str) -> None:
    assert enter("help", name) == enter(name, "--help")


def test_completion_of_commands_and_states(enter: Enter) -> None:
    found = enter(_UPROXY_COMPLETE="bash_complete", COMP_WORDS="uproxy st", COMP_CWORD="1")
    assert found.stdout.split() == ["plain,status"]
    found = enter(_UPROXY_COMPLETE="bash_complete", COMP_WORDS="uproxy help st", COMP_CWORD="2")
    assert found.stdout.split() == ["plain,status"]
    words = "uproxy status --state p"
    found = enter(_UPROXY_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="3")
    assert found.stdout.split() == ["plain,paused", "plain,pending"]


def test_commands_that_only_print_load_no_server() -> None:
    """aiohttp takes 0.1 s and more; `status` in a script should not."""
    code = (
        "import sys; from uproxy.cli.commands import doctor, explain, status, top;"
        "print(sorted({'aiohttp', 'uvloop', 'yaml', 'jsonpath'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("source", ["--manifests", "--kubeconfig"])
def test_a_missing_source_is_one_line(source: str, tmp_path: Path) -> None:
    """Nothing else is logged: the only news is that the start has failed."""
    done = run("run", source, str(tmp_path / "nothing"))
    assert done.code == 2
    # A busy machine may have it say what it waits for.
    (line,) = [each for each in done.stderr.splitlines() if " waiting for " not in each]
    assert str(tmp_path / "nothing") in line


def test_output_onto_a_disk_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "uproxy.cli", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        2,
        "uproxy: the output cannot be written: no space left on device\n",
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str) -> None:
    """No file or socket of uproxy gets their numbers."""
    code = (
        "import os, sys; from uproxy import cli; sys.argv = ['uproxy', 'version'];"
        "cli.uproxy.main = lambda **_: int(os.open('/dev/null', 0) <= 2); cli.main()"
    )
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code])
    assert done.returncode == 0
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "uproxy.cli"]
    assert subprocess.run([*command, "version"]).returncode == 0
