"""A real program, and a socket in the place of systemd's."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.program import PATIENCE, program


class Notices:
    """What has been told, and by which processes."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.senders: set[int] = set()

    def next_with(self, line: str) -> list[str]:
        """The lines of the next datagram in which one begins so. Fails where none comes in time."""
        while True:
            datagram, ancillary, _, _ = self._listening.recvmsg(4096, 64)
            self.senders.add(int.from_bytes(ancillary[0][2][:4], "little"))
            lines = datagram.decode().splitlines()
            if any(each.startswith(line) for each in lines):
                return lines


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[Notices]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE)
        yield Notices(listening)


def test_the_life_of_a_service(tmp_path: Path, notices: Notices) -> None:
    (manifests := tmp_path / "manifests").mkdir()
    (config := tmp_path / "uproxy.yaml").write_text(
        "apiVersion: uproxy.dev/v1alpha1\nkind: UproxyConfiguration\n"
    )
    variables = [f"NOTIFY_SOCKET={tmp_path}/notify", "WATCHDOG_USEC=300000"]
    with program(manifests, "--config", str(config), wrapper=["env", *variables]) as uproxy:
        lines = notices.next_with("READY=1")
        assert lines == ["READY=1", "STATUS=ready; 0 frontends, 0 active flows, 2 workers"]
        assert "WATCHDOG=1" in notices.next_with("STATUS=ready")
        notices.next_with("WATCHDOG=1")
        uproxy.process.send_signal(signal.SIGHUP)
        assert notices.next_with("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        notices.next_with("READY=1")
        os.kill(uproxy.process.pid, signal.SIGTERM)
        notices.next_with("STOPPING=1")
        assert uproxy.process.wait(PATIENCE) == 0
    assert notices.senders == {uproxy.process.pid}, "NotifyAccess=main hears no other process"


def test_a_reload_without_a_configuration_does_not_stop_the_service(
    tmp_path: Path, notices: Notices
) -> None:
    """With what the unit alone sets. Elsewhere, SIGHUP means that the terminal is gone; systemd
    would not start again what ends well after `systemctl reload`."""
    (manifests := tmp_path / "manifests").mkdir()
    variables = [f"NOTIFY_SOCKET={tmp_path}/notify"]
    with program(manifests, wrapper=["env", *variables], workers=1) as uproxy:
        notices.next_with("READY=1")
        uproxy.process.send_signal(signal.SIGHUP)
        notices.next_with("RELOADING=1")
        notices.next_with("READY=1")
        uproxy.process.send_signal(signal.SIGTERM)
        notices.next_with("STOPPING=1")
        assert uproxy.process.wait(PATIENCE) == 0
        assert "nothing to reload" in uproxy.log
