"""Completion in real shells, of which those that are missing here are left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_a_shell_completes_commands_and_flags(shell: Shell) -> None:
    assert shell("", "sta") == ["status"]
    assert shell("status --state", "pa") == ["paused"]
