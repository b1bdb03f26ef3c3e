"""Completion in real shells, of which those that are missing here are left out."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.shell_completion import ShellComplete

from tests.cli.test_status_client import answering
from tests.ports import free_port
from tests.terminal import terminal
from uproxy.cli import uproxy

Shell = Callable[[str, str], list[str]]
"""Completes a word that follows others; returns what a person may choose from."""

COMPLETED = {
    "bash": """
        eval "$(uproxy completion bash)"
        complete -p uproxy
        COMP_WORDS=(uproxy {before} '{word}') COMP_CWORD={count}
        _uproxy_completion uproxy '{word}' uproxy
        echo "${{COMPREPLY[@]}}"
    """,
    "zsh": """
        autoload -U compinit
        compinit -D
        eval "$(uproxy completion zsh)"
        print complete $_comps[uproxy]
        compadd() {{ print -- $completions }}
        _describe() {{ print -- ${{completions_with_descriptions%%:*}} }}
        words=(uproxy {before} '{word}') CURRENT=$(({count} + 1))
        _uproxy_completion
    """,
    "fish": """
        uproxy completion fish | source
        complete --command uproxy
        complete --do-complete "uproxy {before} {word}" | string replace --regex "\\s.*" ""
    """,
}
"""Scripts that source what uproxy prints, show that it is registered, and complete a word."""


@pytest.fixture(params=list(COMPLETED))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    name: str = request.param
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    program = tmp_path / "uproxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m uproxy.cli "$@"\n')
    program.chmod(0o755)
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]

    def complete(before: str, word: str) -> list[str]:
        count = len(before.split()) + 1
        script = COMPLETED[name].format(before=before, word=word, count=count)
        done = subprocess.run(
            [path, *options, "-c", script],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        registered, *completed = done.stdout.splitlines()
        assert "complete" in registered
        assert "uproxy" in registered
        return " ".join(completed).split()

    return complete


NAMES = ["default/kubia", "default/web", "kube-system/kube-dns", "prod/web", "x/$(reboot)", "y/*"]


def items(url: str, words: str) -> list[str]:
    """What click proposes for the last of the words."""
    *before, last = words.split(" ")
    proposed = ShellComplete(uproxy, {}, "uproxy", "_").get_completions(
        [*before, "--url", url], last
    )
    return [each.value for each in proposed]


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        (
            "status ",
            ["default/kubia", "default/web", "kube-system/kube-dns", "kubia", "prod/web", "web"],
        ),
        ("status ku", ["kube-system/kube-dns", "kubia"]),
        ("explain prod/", ["prod/web"]),
        ("explain svc/", ["svc/kubia", "svc/web"]),
        ("explain service/k", ["service/kubia"]),
        ("top -n prod ", ["web"]),
        ("status -n kube-system svc/", ["svc/kube-dns"]),
        ("status x/", []),
        ("status y/", []),
    ],
)
def test_names_of_services(words: str, proposed: list[str]) -> None:
    body = msgspec.json.encode({"services": NAMES})
    asked: list[str] = []
    with answering(200, body, asked) as url:
        assert items(url, words) == proposed
    assert asked == ["/api/v1/services"]


def test_names_of_namespaces() -> None:
    with answering(200, msgspec.json.encode({"services": NAMES}), []) as url:
        # The value follows its flag, so the URL has to come before.
        found = ShellComplete(uproxy, {}, "uproxy", "_").get_completions(
            ["status", "--url", url, "-n"], ""
        )
    assert [each.value for each in found] == ["default", "kube-system", "prod"]


@pytest.mark.parametrize(
    ("code", "body"),
    [(404, b"404: Not Found"), (200, b"<html>"), (200, b'{"services": [7]}'), (500, b"")],
)
def test_another_server_has_no_names(
    code: int, body: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with answering(code, body, []) as url:
        assert items(url, "status ") == []
    assert capfd.readouterr() == ("", "")


def test_without_a_server_there_are_no_names(capfd: pytest.CaptureFixture[str]) -> None:
    assert items(f"http://127.0.0.1:{free_port()}", "explain ") == []
    assert capfd.readouterr() == ("", "")


def test_a_silent_server_does_not_stop_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uproxy.cli.service_completion._PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert items(f"http://127.0.0.1:{server.getsockname()[1]}", "status ") == []


def test_a_shell_completes_commands_and_flags(shell: Shell) -> None:
    assert shell("", "sta") == ["status"]
    assert shell("status --state", "pa") == ["paused"]


def test_a_shell_completes_names(shell: Shell) -> None:
    with answering(200, msgspec.json.encode({"services": NAMES}), []) as url:
        assert shell(f"explain --url {url}", "kube") == ["kube-system/kube-dns"]


def test_tab_in_bash(tmp_path: Path) -> None:
    """bash itself divides the line into words, at colons too."""
    program = tmp_path / "uproxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m uproxy.cli "$@"\n')
    program.chmod(0o755)
    variables = {
        "PS1": "READY> ",
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HISTFILE": str(tmp_path / "history"),
        "INPUTRC": "/dev/null",
    }
    with (
        answering(200, msgspec.json.encode({"services": NAMES}), []) as url,
        terminal(["bash", "--norc", "--noprofile", "-i"], variables=variables) as (_, screen),
    ):
        screen.wait_for("READY> ")
        screen.type('eval "$(uproxy completion bash)"\r')
        screen.wait_for("READY> ")
        screen.type(f"uproxy status --url {url} -l 'a in (b)' kube\t")
        screen.wait_for("kube-system/kube-dns ")
        screen.type("--state=pau\t")
        screen.wait_for("--state=paused ")
        screen.type(f"\x15uproxy run --manifests {tmp_path}/upr\t")
        screen.wait_for(f"{tmp_path}/uproxy ")
