"""Service ports from which replies to pods' addresses did not come back."""

from __future__ import annotations

from uproxy.control.astray_ports import AstrayPorts
from uproxy.core.route import ServicePortName

HTTP = ServicePortName("default", "web", "http", "TCP")
DNS = ServicePortName("kube-system", "dns", "", "UDP")


class Recorded(AstrayPorts):
    def __init__(self) -> None:
        self.changes = 0
        super().__init__(self._count)

    def _count(self) -> None:
        self.changes += 1


def test_each_is_news_once() -> None:
    """Every worker may report it."""
    ports = Recorded()
    ports.reported([HTTP, DNS], 0.0)
    ports.reported([DNS], 1.0)
    assert (sorted(ports.ports), ports.changes) == ([HTTP, DNS], 1)


def test_they_are_tried_again_after_an_hour() -> None:
    ports = Recorded()
    ports.reported([HTTP], 0.0)
    ports.reported([DNS], 100.0)
    ports.expire(3599.0)
    assert (sorted(ports.ports), ports.changes) == ([HTTP, DNS], 2)
    ports.expire(3600.0)
    assert (sorted(ports.ports), ports.changes) == ([DNS], 3)
    ports.reported([HTTP], 3601.0)
    assert (sorted(ports.ports), ports.changes) == ([HTTP, DNS], 4)


def test_they_are_tried_again_when_something_has_changed() -> None:
    ports = Recorded()
    ports.lift()
    assert ports.changes == 0
    ports.reported([HTTP], 0.0)
    ports.lift()
    assert (sorted(ports.ports), ports.changes) == ([], 2)
