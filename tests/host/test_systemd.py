"""What systemd asks for, and what it is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from uproxy.host.systemd import (
    ALIVE,
    READY,
    Systemd,
    more_time,
    notify_address,
    reloading,
    status,
    watchdog_time,
)


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        pytest.param({}, None, id="not started by systemd"),
        pytest.param({"NOTIFY_SOCKET": ""}, None, id="empty"),
        pytest.param({"NOTIFY_SOCKET": "/run/n"}, "/run/n", id="in the file system"),
        pytest.param({"NOTIFY_SOCKET": "@n"}, "\0n", id="abstract"),
        pytest.param({"NOTIFY_SOCKET": "vsock:2:1234"}, None, id="that of another machine"),
    ],
)
def test_notify_address(environ: dict[str, str], address: str | None) -> None:
    assert notify_address(environ) == address


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        pytest.param({}, None, id="no watchdog"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="whoever this is"),
        pytest.param({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5, id="this process"),
        pytest.param({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, None, id="its parent"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="no number"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="no time"),
        pytest.param({"WATCHDOG_USEC": "9" * 400}, None, id="no number of systemd"),
    ],
)
def test_watchdog_time(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_time(environ, 7) == seconds


def test_a_status_is_one_short_line() -> None:
    assert status("a\nREADY=1") == "STATUS=a READY=1"
    assert status("x" * 300) == f"STATUS={'x' * 197}..."


def test_times_are_in_microseconds() -> None:
    assert reloading(1.5) == "RELOADING=1\nMONOTONIC_USEC=1500000"
    assert more_time(40) == "EXTEND_TIMEOUT_USEC=40000000"


@pytest.mark.parametrize("abstract", [False, True])
def test_a_datagram_has_one_line_for_each_state(abstract: bool, tmp_path: Path) -> None:
    name = f"@{tmp_path}/n" if abstract else f"{tmp_path}/n"
    address = notify_address({"NOTIFY_SOCKET": name})
    assert address is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        Systemd(address).tell(READY, status("ready"), ALIVE)
        assert listening.recv(4096) == b"READY=1\nSTATUS=ready\nWATCHDOG=1"


def test_a_systemd_that_is_gone_or_has_no_room_is_no_error(tmp_path: Path) -> None:
    gone, full = str(tmp_path / "gone"), str(tmp_path / "full")
    Systemd(gone).tell(READY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(full)
        listening.setblocking(False)
        for _ in range(10_000):
            Systemd(full).tell(READY)
        assert listening.recv(4096) == b"READY=1"
