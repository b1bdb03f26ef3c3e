"""Test processes meet neither the ports of other programs nor the signals that were ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests import ports
from tests.isolation import ephemeral_ports

_IGNORING = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")

_DISPOSITIONS = """
import subprocess
from tests import isolation
isolation.heed_signals()
print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
"""

_NETWORK = """
import os, socket
from tests import isolation
before = os.stat("/proc/self/ns/net").st_ino
moved = isolation.own_network()
assert moved == (os.stat("/proc/self/ns/net").st_ino != before)
with isolation.network_of_the_machine():
    assert os.stat("/proc/self/ns/net").st_ino == before
for family, address in ((socket.AF_INET, "127.0.0.77"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_STREAM) as listener, socket.socket(family) as client:
        listener.bind((address, 0))
        listener.listen()
        client.connect(listener.getsockname())
print(moved)
"""


def python(code: str, *before: str) -> str:
    done = subprocess.run(
        [*before, sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_programs_of_tests_start_with_the_default_dispositions_in_the_background_too() -> None:
    status = dict(
        line.split(":\t") for line in python(_DISPOSITIONS, *_IGNORING).splitlines() if line
    )
    ignored = int(status["SigIgn"], 16)  # Signal 1 is the lowest bit; libraries may ignore others.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        assert not ignored >> number - 1 & 1, number


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_test_process_has_a_network_of_its_own_with_both_loopback_addresses() -> None:
    # In a container root may lack CAP_SYS_ADMIN: then it says so, and stays where it is.
    assert python(_NETWORK).strip() in ("True", "False")


def test_ports_of_tests_are_outside_the_ephemeral_range() -> None:
    first, last = ephemeral_ports()
    for _ in range(50):
        assert not first <= ports.free_port() <= last


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        pytest.param((32768, 60999), (12000, 30000), id="the usual one"),
        pytest.param((16384, 60999), (12000, 16384), id="one that begins lower"),
        pytest.param((1024, 49151), (49152, 65536), id="one that ends lower"),
        pytest.param((1024, 65535), (12000, 30000), id="one that leaves nothing"),
    ],
)
def test_where_ports_of_tests_are_taken_from(
    ephemeral: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert ports.outside(ephemeral) == expected
