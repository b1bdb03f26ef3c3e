"""Witnesses, whose replies did come back, prove a path; those that are gone or dead do not."""

from __future__ import annotations

import dataclasses
import errno
import itertools
from _socket import socket as Socket
from typing import cast

import pytest

from tests.dataplane.node_worker import PORT, dropping, node_worker, owner
from tests.dataplane.return_paths import ASTRAY, FAMILIES, denies, fails
from tests.netns import kit
from tests.netns.kit import World
from tests.netns.peers import pod
from uproxy.core.protocols import TCP, UDP
from uproxy.core.route import Backend

pytestmark = kit.needs("nft=nftables")


@pytest.mark.parametrize("family", FAMILIES)
async def test_witnesses_that_are_dead_say_nothing(net: World, family: str) -> None:
    """Without one, replies that go astray are noticed as on a path that was never proven."""
    place = net.local[0]
    with pod("it", net.remote[0]), pod("old", net.remote[1]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[1])
            made.serve(TCP, net.remote[0])
            await made.ask(place, UDP, family)
            (old,) = made.witnesses()
            made.tell(witnesses=(old,))
            gone = "meta l4proto { tcp, udp } th dport 8080"
            with dropping(net.remote[1], gone), dropping(net.node, ASTRAY):
                for found in [], [owner(TCP)]:
                    answer = await made.ask(place, TCP, family)
                    assert answer.startswith("it ")
                    assert place.address(family) not in answer
                    await made.probed()
                    assert made.report() == found
                    # The next probe need not wait.
                    made.context.return_paths._not_before.clear()


@pytest.mark.parametrize("number", range(1, 7))
async def test_a_probe_for_which_there_are_too_few_descriptors_ends_without_a_verdict(
    net: World, number: int
) -> None:
    """Whichever of its sockets cannot be opened."""
    allowed, denied = net.local[0], net.local[1]
    with pod("it", net.remote[0]), pod("dead", net.remote[1]):
        async with node_worker(net) as made:
            reactor, paths = made.context.reactor, made.context.return_paths
            made.serve(UDP, net.remote[0])
            made.serve(TCP, net.remote[1])
            await made.ask(allowed, UDP, "IPv4")
            await made.ask(allowed, TCP, "IPv4")
            with dropping(net.remote[1], "tcp dport 8080"):
                kernel, opened = reactor.kernel, itertools.count(1)

                def new_socket(*arguments: int) -> Socket:
                    if next(opened) == number:
                        raise OSError(errno.EMFILE, "too many open files")
                    return kernel.new_socket(*arguments)

                reactor.kernel = dataclasses.replace(
                    kernel, new_socket=cast("type[Socket]", new_socket)
                )
                backend = Backend(net.remote[1].ipv4, PORT)
                paths.probe(owner(TCP), backend, denied.ipv4)
                await made.probed()
            assert next(opened) > number
            assert reactor.failures == 0
            assert made.report() == []
            assert paths.is_proven(denied.ipv4, backend)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_witness_whose_pod_is_gone_says_nothing(net: World, family: str) -> None:
    """Policies no longer let its address in, so that its backend answers only the node."""
    gone, denied = net.local[0], net.local[1]
    with pod("it", net.remote[0]), pod("guarded", net.remote[1]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[0])
            made.serve(TCP, net.remote[1])
            await made.ask(gone, UDP, family)
            (old,) = made.witnesses()
            with (
                dropping(gone, "meta l4proto tcp"),
                dropping(net.remote[0], denies(gone, family)),
                dropping(net.remote[1], denies(denied, family)),
            ):
                await made.ask(denied, TCP, family)
                await made.probed()
            assert made.report() == []
            assert not made.context.return_paths.is_proven(old.pod, old.backend)


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_was_found_without_a_witness_is_lifted_by_the_first_one(
    net: World, family: str
) -> None:
    allowed, denied = net.local[0], net.local[1]
    with (
        pod("it", net.remote[0]),
        pod("guarded", net.remote[1]),
        dropping(net.remote[1], denies(denied, family)),
    ):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[1])
            made.serve(UDP, net.remote[0])
            answer = await made.ask(denied, TCP, family)
            assert answer.startswith("guarded ")
            await made.probed()
            assert made.context.return_paths.astray == {owner(TCP)}
            await made.ask(allowed, UDP, family)
            assert made.context.return_paths.astray == set()
            assert made.report() == []
            await fails(made, denied, TCP, family)
