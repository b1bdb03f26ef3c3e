"""Scenarios with many clients, in which rare conditions become frequent."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.simulation.network import Reply
from tests.simulation.peers import stream_of
from tests.simulation.scenario import Client, Scenario, Service, UdpSender, saying
from tests.simulation.udp_peers import Replying, Sending
from tests.simulation.world import Fault


def crowd(random: Random, drawn: Scenario) -> Scenario:
    """Clients that come once fill the table, over and over, beside one that goes on."""
    most = random.choice((16, 24, 40))
    pace, count = 0.008, 3 * most + random.randrange(most)
    service = replace(
        drawn.services[0],
        replies=(Reply.ACCEPTS,) * drawn.services[0].backends,
        replying=Replying(replies=(1,), sizes=(64,), delay=0.02),
    )
    talk = tuple(0.2 * step for step in range(int((pace * count + 3) / 0.2)))
    senders = [UdpSender(service=0, sending=Sending(
        at=talk, sizes=(100,) * len(talk), port=40_000, keeps=True))]  # fmt: skip
    for number in range(count):
        at = 2.5 + number * pace
        sending = Sending(at=(at,), sizes=(64,), port=41_000 + number)
        senders.append(UdpSender(service=0, sending=sending))
    return _crowded(drawn, (service,), tuple(senders), (), most)


def torrent(random: Random, drawn: Scenario) -> Scenario:
    """Few clients that send bursts of datagrams of one size, and backends that reply to each."""
    size = random.choice((64, 1200))
    sizes = (size, size, size, size, size, size, random.choice((size, 10)))
    service = replace(
        drawn.services[0],
        replies=(Reply.ACCEPTS,) * drawn.services[0].backends,
        replying=Replying(replies=(1,), sizes=sizes, delay=random.choice((0.0, 1e-5))),
    )
    senders = []
    for number in range(random.randint(1, 3)):
        at, times = 0.0, []
        for _ in range(random.randint(3, 8)):
            times += [at] * random.randint(8, 30)
            at += random.choice((1e-5, 1e-4, 1e-3))
        lengths = tuple(random.choice(sizes) for _ in times)
        sending = Sending(at=tuple(times), sizes=lengths, port=40_000 + number)
        senders.append(UdpSender(service=0, sending=sending))
    return replace(drawn, services=(service,), senders=tuple(senders), datagram_buffers=64)


def flood(random: Random, drawn: Scenario) -> Scenario:
    """As many UDP flows as may be and more, whose backend is silent, and TCP clients between; or
    as many TCP flows, and UDP clients between."""
    most, udp = random.choice((16, 24, 40)), replace(drawn.services[0], protocol="UDP")
    udp = replace(udp, replies=(Reply.ACCEPTS,), backends=1)
    tcp = replace(udp, protocol="TCP", proxy_protocol=None)
    by_udp = random.random() < 0.5
    replying = Replying(replies=(0,) if by_udp else (1,), sizes=(64,), delay=0.01)
    udp = replace(udp, replying=replying)
    few, many = random.randint(1, 3), random.randint(most, 2 * most)
    clients = tuple(
        Client(
            at=1.0 + random.random(),
            service=1,
            script=saying(stream_of(number + 1, 500), end_after=0.0 if by_udp else 3.0),
        )
        for number in range(few if by_udp else many)
    )
    senders = tuple(
        UdpSender(service=0, sending=Sending(
            at=(2 * random.random() + (0.0 if by_udp else 2.5),), sizes=(64,),
            port=41_000 + number,
        ))
        for number in range(many if by_udp else few)
    )  # fmt: skip
    crowded = _crowded(drawn, (udp, tcp), senders, clients, most)
    return replace(crowded, prompt=by_udp)


def chorus(random: Random, drawn: Scenario) -> Scenario:
    """Many clients that all speak at the same time, a little and often, to a ring that is small."""
    count = random.randint(10, 36)
    pause, slowness = random.choice((2e-4, 1e-3)), random.choice((1.0, 10.0, 10.0))
    end_after = 2e-5 * slowness
    clients = tuple(
        Client(
            at=random.random() * 0.001,
            service=0,
            script=saying(stream_of(number + 1, 800), piece=200, pause=pause, end_after=end_after),
        )
        for number in range(count)
    )
    service = replace(drawn.services[0], proxy_protocol=None)
    return replace(
        drawn, services=(service,), clients=clients, steps=(), slowness=slowness,
        ring_entries=2, ring_completions=random.choice((4, 64, 64)),
        ring_buffers=random.choice((4, 64)),
        buffers=random.choice(((512,), (16_384,))), max_flows=1000, spare_descriptors=1000,
        rates=random.choice(({}, {Fault.SHORT_SEND: 0.05, Fault.SHUFFLED_EVENTS: 0.3})),
        answer=saying(b"", piece=300, pause=pause, end_after=end_after),
    )  # fmt: skip


def narrow(random: Random, drawn: Scenario) -> Scenario:
    """More TCP clients than there are descriptors for, which the process knows."""
    service = replace(drawn.services[0], replies=(Reply.ACCEPTS,), backends=1, proxy_protocol=None)
    count = random.randint(16, 30)
    clients = tuple(
        Client(
            at=random.random() * 0.1,
            service=0,
            script=saying(stream_of(number + 1, random.choice((10, 30_000))), end_after=0.3),
        )
        for number in range(count)
    )
    crowded = _crowded(drawn, (service,), (), clients, 1000)
    spare = random.choice((28, 36, 48))
    return replace(crowded, knows_limit=True, spare_descriptors=spare)


def _crowded(
    drawn: Scenario,
    services: tuple[Service, ...],
    senders: tuple[UdpSender, ...],
    clients: tuple[Client, ...],
    most: int,
) -> Scenario:
    return replace(
        drawn, services=services, senders=senders, clients=clients, max_flows=most, crowded=True,
        rates={}, steps=(), slowness=1.0, rough=False, idle_timeout=0.0, half_close_timeout=0.0,
        spare_descriptors=1000, datagram_buffers=16, answer=saying(b""),
    )  # fmt: skip
