"""How an installation is tried, with this environment's uproxy in the place of a new one."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

import uproxy
from release.installs import InstallError, environment, find_python, free_offset, serving
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def test_a_python_of_a_version_is_found_where_it_works(tmp_path: Path) -> None:
    version = "{}.{}".format(*sys.version_info)
    (tmp_path / f"python{version}").symlink_to(sys.executable)
    found = find_python(version, str(tmp_path))
    assert found == tmp_path / f"python{version}"
    (broken := tmp_path / "python3.99").write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert find_python("3.99", str(tmp_path)) is None
    assert find_python("3.98", str(tmp_path)) is None


def test_an_environment_is_empty_and_a_failure_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "uproxy-1-py3-none-any.whl"
    with (
        pytest.raises(InstallError, match="failed: ") as caught,
        environment(Path(sys.executable), str(missing), "--no-index"),
    ):
        raise AssertionError("there is nothing to install")
    assert "\n" not in str(caught.value)


def test_a_program_that_serves_and_one_that_does_not() -> None:
    program = Path(sys.executable).with_name("uproxy")
    examples = ROOT / "examples"
    problem = serving(program, examples, uproxy.__version__)
    if problem.startswith("cannot be tried"):
        pytest.skip(problem)  # Only without root, where tests share the machine's network.
    assert problem == ""
    assert "--version says" in serving(program, examples, "99")
    nothing = serving(program, ROOT / "nothing", uproxy.__version__)
    assert "does not answer: " in nothing


def test_ports_that_are_taken_are_left_out() -> None:
    port = free_port()
    offset = free_offset([port - 2000])
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port - 2000 + offset))
        assert free_offset([port - 2000]) != offset
