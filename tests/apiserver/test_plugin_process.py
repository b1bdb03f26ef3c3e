"""Programs that issue credentials, and misbehave in every way."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from pathlib import Path

import pytest

from tests.sources.last_known.test_fallback import until
from uproxy.apiserver.plugin_process import run_program

PATIENCE = 30.0


def program(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


async def until_gone(pid: int) -> None:
    """Wait until a process has ended. It may be the child of another process."""
    await until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_output_and_status() -> None:
    text = "import os, sys; print(os.environ['A']); print('secret', file=sys.stderr); sys.exit(3)"
    ended = await run_program(program(text), {"A": "b"}, patience=PATIENCE)
    assert ended == (3, b"b\n")


async def test_output_without_end_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    text = """
    import sys
    while True:
        sys.stderr.write("x" * 65536)
        sys.stdout.write("y" * 65536)
    """
    ended = await run_program(program(text), os.environ, patience=PATIENCE, most=100_000)
    assert len(ended.output) == 100_001
    assert ended.status == -9
    assert "xxx" not in capfd.readouterr().err


GRANDCHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""


async def test_what_a_program_leaves_behind_is_killed_and_not_waited_for() -> None:
    ended = await run_program(program(GRANDCHILD), os.environ, patience=PATIENCE)
    assert ended.status == 0
    await until_gone(int(ended.output))


async def test_a_program_that_does_not_end_is_not_waited_for() -> None:
    with pytest.raises(TimeoutError):
        await run_program(program("import time; time.sleep(600)"), os.environ, patience=0.2)


async def test_what_a_program_has_started_is_killed_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = f"""{GRANDCHILD}
open({str(note)!r} + ".new", "w").write(str(child.pid))
os.rename({str(note)!r} + ".new", {str(note)!r})
time.sleep(600)
"""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run_program(program(text), os.environ, patience=600.0))
        await until(note.exists)
        running.cancel()
    await until_gone(int(note.read_text()))


@pytest.mark.parametrize(
    ("command", "environ"),
    [
        pytest.param(["/nowhere/at/all"], {}, id="no such program"),
        pytest.param([sys.executable, "a\0b"], {}, id="NUL in an argument"),
        pytest.param([sys.executable], {"A": "b\0c"}, id="NUL in a variable"),
        pytest.param([sys.executable, "\ud800"], {}, id="half a character"),
        pytest.param([sys.executable, "x" * 10_000_000], {}, id="too long"),
    ],
)
async def test_programs_that_cannot_be_started_leave_no_descriptor(
    command: list[str], environ: dict[str, str]
) -> None:
    # The event loop keeps some descriptors open after its first child process.
    await run_program([sys.executable, "-c", ""], os.environ, patience=PATIENCE)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((OSError, ValueError)):
        await run_program(command, environ, patience=PATIENCE)
    assert len(os.listdir("/proc/self/fd")) == before
