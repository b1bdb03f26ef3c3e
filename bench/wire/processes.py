"""Programs that the benchmark starts: their lifetime, their CPU time and their memory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.wire.kernel import share_priority
from bench.wire.places import Place

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 15.0
"""Seconds that a program gets to answer, and to end."""


class Unavailable(Exception):
    """Something cannot be measured on this machine; one line that says why."""


def find_program(name: str, package: str) -> str:
    """Path of a program. Raises Unavailable with the Debian package that has it."""
    beside = Path(sys.executable).parent / name
    path = shutil.which(name, path=_PATH) or (str(beside) if beside.exists() else None)
    if path is None:
        raise Unavailable(f"{name} is not installed (Debian package {package})")
    return path


class Running:
    """A started program."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def check(self) -> None:
        """Raises Unavailable with the end of its output if it has ended by itself."""
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise Unavailable(f"{self.process.args!r} ended: {lines[-1]}")

    def wait_until_accepting(self, places: Iterable[Place]) -> None:
        """Until TCP connections are accepted everywhere. Raises Unavailable."""
        deadline = time.monotonic() + _PATIENCE
        for place in places:
            while not _accepts(place):
                self.check()
                if time.monotonic() > deadline:
                    raise Unavailable(f"{self.process.args!r} does not accept on {place}")
                time.sleep(0.01)

    def cpu_seconds(self) -> float:
        """User and system time of the whole process tree so far, with children that ended."""
        pids = tree(self.process.pid)
        return sum(map(cpu_nanoseconds, pids)) / 1e9 + sum(map(_ended_ticks, pids)) / _TICKS

    def workers(self) -> list[int]:
        """The processes that it has started."""
        return tree(self.process.pid)[1:]

    def memory(self) -> int:
        """Bytes; pages that several processes of the tree share are counted once."""
        return sum(_proportional_set_size(pid) for pid in tree(self.process.pid))


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Start a program; it is ended by its process id when the context closes."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            # Ctrl-C is for the benchmark alone, and the scheduler gives each session its share of
            # the processors (sched(7), autogroup): no peer is to have more of them than another.
            start_new_session=True,
        )
    try:
        share_priority([process.pid])
        yield Running(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def output_of(command: Sequence[str], timeout: float = 60.0) -> str:
    """What a program prints, errors included. Raises Unavailable where it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Unavailable(f"{command[0]}: {lines[-1]}")
    return done.stdout


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        fields = _stat(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def stat_fields(line: str) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; the name may hold anything."""
    return line.rpartition(")")[2].split()


def _stat(pid: int) -> list[str]:
    try:
        return stat_fields(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_nanoseconds(pid: int) -> int:
    """What all threads of a process have run, including those that ended; 0 if it has ended.

    /proc/PID/stat has it in ticks of 10 ms only. The number of the clock is what
    clock_getcpuclockid(3) would return.
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return 0


def pin(pid: int, processors: Iterable[int]) -> None:
    """Keep all threads of a process on these processors; those that it starts later inherit it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), processors)


def _ended_ticks(pid: int) -> int:
    """cutime and cstime, of children that ended: fields 16 and 17 of proc_pid_stat(5)."""
    return sum(int(field) for field in _stat(pid)[13:15])


def _proportional_set_size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _accepts(place: Place) -> bool:
    try:
        socket.create_connection(place, timeout=1).close()
    except OSError:
        return False
    return True
