"""What a process uses."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from uproxy.host.process_usage import process_usage


def test_this_process() -> None:
    used = process_usage(os.getpid())
    assert used is not None
    now = resource.getrusage(resource.RUSAGE_SELF)
    # The kernel counts in ticks of 10 ms, separately for user and system time.
    assert 0 < used.cpu_seconds <= now.ru_utime + now.ru_stime + 0.02
    assert 0 < used.resident_bytes <= now.ru_maxrss * 1024


def test_open_files() -> None:
    used = process_usage(os.getpid())
    assert used is not None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert used.most_open_files == (None if soft == resource.RLIM_INFINITY else soft)
    if used.open_files is None:
        pytest.skip("before Linux 6.2, the kernel does not say how many there are")
    descriptors = [os.dup(1) for _ in range(10)]
    try:
        more = process_usage(os.getpid())
    finally:
        for each in descriptors:
            os.close(each)
    assert more is not None
    assert more.open_files == used.open_files + 10


def test_a_process_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert process_usage(process.pid) is None
