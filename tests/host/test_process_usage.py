"""What a process uses."""

from __future__ import annotations

import os
import resource
import subprocess

from uproxy.host.process_usage import process_usage


def test_this_process() -> None:
    used = process_usage(os.getpid())
    assert used is not None
    now = resource.getrusage(resource.RUSAGE_SELF)
    # The kernel counts in ticks of 10 ms, separately for user and system time.
    assert 0 < used.cpu_seconds <= now.ru_utime + now.ru_stime + 0.02
    assert 0 < used.resident_bytes <= now.ru_maxrss * 1024


def test_a_process_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert process_usage(process.pid) is None
