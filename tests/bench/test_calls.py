"""The counting of calls: each is attributed to the operation that makes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bench.micro import calls, ptrace
from tests.io_uring import needs_io_uring

ENGINES = [pytest.param("io_uring", marks=needs_io_uring), "epoll"]


@pytest.mark.parametrize("engine", ENGINES)
def test_connection(engine: str) -> None:
    counted = calls.count(engine, "connection")
    assert counted.python["uproxy.dataplane.tcp.listener.TcpListener._begin"] == 1
    assert counted.builtin["socket.connect_ex"] == 1
    assert ("epoll.register" in counted.builtin) == (engine == "epoll")
    # Without the kernel's headers, calls have no names. They are at least socket, connect, accept,
    # shutdown, two to close, and one to wait.
    assert counted.totals()["system"] > 7
    assert not any(name.startswith("bench.") for name in counted.python)


def test_request_is_far_less_than_a_connection() -> None:
    counted = calls.count("epoll", "request").totals()
    assert 1 <= counted["python"] < 20
    # Two to receive, two to send, and one to wait, at the least.
    assert 5 <= counted["system"] < 12


def test_system_calls_of_a_process() -> None:
    program = "import os, sys; sys.stdin.readline(); [os.getppid() for _ in range(100)]; "
    program += "os.kill(os.getpid(), int(sys.argv[1])); sys.stdin.readline()"
    command = [sys.executable, "-c", program, str(int(ptrace.END))]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        ptrace.seize(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        counted = ptrace.count(process.pid)
        process.stdin.close()
        assert process.wait(15) == 0
    assert max(counted.values()) >= 100


def test_process_that_ends_is_an_error() -> None:
    with subprocess.Popen(["sleep", "30"]) as process:
        ptrace.seize(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="has ended"):
            ptrace.count(process.pid)
