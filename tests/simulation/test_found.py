"""What the simulation has found, each as a scenario of its own in which it happened often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.peers import stream_of
from tests.simulation.scenario import Client, Mode, Scenario, plain, saying
from tests.simulation.simulation import run
from tests.simulation.world import Fault
from uproxy.core.route import ProxyProtocol


def violations(scenario: Scenario) -> list[str]:
    return run(scenario).violations


def many(mode: Mode, count: int, **different: Any) -> list[list[str]]:
    """What is wrong in so many scenarios that differ by chance only."""
    found = (violations(plain(seed, mode, **different)) for seed in range(count))
    return [each for each in found if each]


def test_a_reset_that_a_send_has_heard_of_is_not_taken_for_the_end_of_the_stream() -> None:
    """Linux tells an error once. A send to the socket may be told; then a receive finds what looks
    like a clean end."""
    clients = tuple(
        Client(at=0.0, service=0, script=saying(stream_of(number, 100), gives_up=5e-5))
        for number in range(1, 17)
    )
    rates = {Fault.RECEIVE_ENDS: 0.3, Fault.NO_BUFFERS: 0.3}
    answer = saying(b"", pause=5e-5, piece=300)
    assert not many("ring", 300, clients=clients, rates=rates, answer=answer)


def test_a_reply_with_which_a_receive_ends_is_not_an_empty_one() -> None:
    assert not many("udp", 10, rates={Fault.RECEIVE_ENDS: 0.5})


def test_no_backend_is_blamed_when_epoll_watches_as_much_as_it_may() -> None:
    assert not many("epoll", 20, rates={Fault.NO_WATCH: 0.5})


@pytest.mark.parametrize("version", ProxyProtocol)
def test_a_header_that_waits_while_epoll_has_no_memory_is_no_bug(version: ProxyProtocol) -> None:
    """The client is dropped, and that is counted."""
    service = replace(plain(0, "ring").services[0], proxy_protocol=version)
    rates = {Fault.FULL_SEND: 0.5, Fault.NO_WATCH: 0.5}
    assert not many("ring", 20, services=(service,), rates=rates)
