from __future__ import annotations

from uproxy.control.load_balancer.lease_echo import LeaseEcho
from uproxy.core.announcing.leases import AnnouncerLease


class Watch:
    def __init__(self) -> None:
        self.restarts = 0
        self.echo = LeaseEcho("n1", self._restart)

    def _restart(self) -> None:
        self.restarts += 1

    def saw(self, version: str, node: str = "n1") -> None:
        self.echo.saw(AnnouncerLease(node=node, instance="1", duration=3.0, version=version))


def test_a_watch_that_brings_what_was_written_is_left_alone() -> None:
    watch = Watch()
    for number in range(1, 20, 2):
        watch.echo.wrote(f"{number}", float(number))
        watch.saw(f"{number}")
        watch.saw(f"{number + 1}")  # The watch was quicker than the answer.
        watch.echo.wrote(f"{number + 1}", float(number))
        watch.echo.check(number + 10.0)
    assert watch.restarts == 0


def test_a_watch_that_does_not_is_begun_again_once_until_more_is_missing() -> None:
    watch = Watch()
    watch.echo.wrote("1", 10.0)
    watch.echo.wrote("2", 11.0)
    watch.saw("3", node="n2")
    watch.echo.check(12.0)
    assert watch.restarts == 0
    watch.echo.check(12.1)
    watch.echo.check(20.0)
    assert watch.restarts == 1
    watch.echo.wrote("4", 21.0)
    watch.echo.check(23.5)
    assert watch.restarts == 2
