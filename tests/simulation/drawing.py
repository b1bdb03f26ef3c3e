"""Draws a scenario from a seed."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from tests.simulation.crowds import chorus, crowd, flood, narrow, torrent
from tests.simulation.network import Reply
from tests.simulation.peers import End, Script, stream_of
from tests.simulation.scenario import (
    HARMFUL,
    HARMLESS,
    Client,
    Mode,
    Scenario,
    Service,
    Step,
    UdpSender,
)
from tests.simulation.udp_peers import Replying, Sending
from tests.simulation.world import Fault
from uproxy.core.route import BalancerKind, ProxyProtocol

_BUFFERS: Final = (
    (512, 2048, 4096),
    (2048, 4096, 16_384),
    (4096, 16_384, 65_536),
    (16_384, 65_536, 262_144),
    (65_536, 262_144, 1 << 20),
)
"""Bytes of socket buffers, one row for a simulation."""


def draw(seed: str, mode: Mode) -> Scenario:
    """Anything that may happen, but most of it seldom: a simulation in which everything goes wrong
    at once gets nowhere."""
    random = Random(f"{mode} {seed}")
    buffers = random.choice(_BUFFERS)
    services = tuple(_service(random, mode) for _ in range(random.choice((1, 1, 1, 2))))
    rough, entries = random.random() < 0.15, random.choice((2, 4, 8, 64))
    count = random.choice((6, 12, 24) if rough else (1, 1, 2, 2, 3, 4, 6, 12))
    clients: tuple[Client, ...] = ()
    senders: tuple[UdpSender, ...] = ()
    if mode == "udp":
        senders = tuple(_sender(random, number, services) for number in range(count))
    else:
        clients = tuple(
            _client(random, number, services, buffers, rough=rough, many=count)
            for number in range(count)
        )
    drawn = Scenario(
        seed=seed,
        mode=mode,
        on_ring=mode == "ring" or (mode in ("splice", "udp") and random.random() < 0.5),
        rates=_rates(random),
        buffers=buffers,
        ring_entries=entries,
        ring_completions=entries * random.choice((1, 2, 4)),
        ring_buffers=random.choice((4, 8, 16, 64)),
        datagram_buffers=random.choice((2, 4, 16)),
        limits=random.random() < 0.6,
        largest_pipe=random.choice((1 << 16, 1 << 17, 1 << 20)),
        busy_poll=random.random() < 0.3,
        slowness=random.choice((1.0, 1.0, 1.0, 10.0, 60.0)),
        rough=rough,
        services=services,
        clients=clients,
        senders=senders,
        steps=_steps(random, len(services), mode) + _detaching(seed, mode),
        max_flows=random.choice((1000, 1000, 1000, 2)),
        idle_timeout=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 2.0)),
        half_close_timeout=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 1.0)),
        spare_descriptors=random.choice((1000, 1000, 1000, 1000, 1000, 4, 8)),
        random_seed=random.getrandbits(48),
    )
    if mode == "ring" and random.random() < 0.06:
        return chorus(random, drawn)
    if mode != "udp" and random.random() < 0.03:
        return narrow(random, drawn)
    if mode == "udp" and random.random() < 0.1:
        return random.choice((crowd, flood))(random, drawn)
    bursts = Random(f"bursts {mode} {seed}")
    if mode == "udp" and len(services) == 1 and bursts.random() < 0.15:
        drawn = torrent(bursts, drawn)
    return _with_pods(_on_paths(drawn))


def _rates(random: Random) -> dict[Fault, float]:
    rates = {}
    if random.random() < 0.8:
        for fault in random.sample(HARMLESS, random.choice((0, 1, 2, 3, 5))):
            rates[fault] = random.choice((0.02, 0.1, 0.4))
    if random.random() < 0.3:
        for fault in random.sample(HARMFUL, random.choice((1, 2))):
            rates[fault] = random.choice((0.02, 0.1, 0.3))
    return rates


def _service(random: Random, mode: Mode) -> Service:
    count = random.choice((1, 2, 3))
    replies = [Reply.ACCEPTS] * count
    if random.random() < 0.2:
        for index in range(random.randint(0, count - 1) + (random.random() < 0.1)):
            replies[index] = random.choice((Reply.REFUSES, Reply.SILENT))
    random.shuffle(replies)
    return Service(
        backends=count,
        replies=tuple(replies),
        balancer=random.choice(tuple(BalancerKind)),
        proxy_protocol=random.choice((None,) * 8 + tuple(ProxyProtocol)),
        affinity=random.choice((0, 0, 0, 60)),
        protocol="UDP" if mode == "udp" else "TCP",
        replying=_replying(random),
    )


def _replying(random: Random) -> Replying:
    return Replying(
        replies=random.choice(((1,), (1,), (0, 1), (0,), (1, 1, 5))),
        sizes=random.choice(((64,), (0, 4, 100), (1400, 9000), (4, 60_000))),
        delay=random.choice((0.0, 0.001, 0.1)),
    )


def _sender(random: Random, number: int, services: tuple[Service, ...]) -> UdpSender:
    count = random.choice((1, 1, 2, 5, 5, 20, 40))
    pace = random.choice((0.0, 1e-4, 0.01, 1.0))
    sizes = random.choice(((64,), (0, 4, 100), (512, 1400), (4, 60_000)))
    at, times = random.choice((0.0, 0.0, random.random())), []
    for _ in range(count):
        times.append(at)
        at += random.random() * pace
    return UdpSender(
        service=random.randrange(len(services)),
        sending=Sending(
            at=tuple(times),
            sizes=tuple(random.choice(sizes) for _ in range(count)),
            port=40_000 + random.randrange(2) * number,
        ),
    )


def _client(
    random: Random,
    number: int,
    services: tuple[Service, ...],
    buffers: tuple[int, ...],
    *,
    rough: bool,
    many: int,
) -> Client:
    return Client(
        at=random.random() * 0.005 if rough else _arrival(random),
        service=random.randrange(len(services)),
        script=script(random, number + 1, buffers, waits=False, rough=rough, many=many),
    )


def script(
    random: Random, number: int, buffers: tuple[int, ...], *, waits: bool, rough: bool, many: int
) -> Script:
    """What a client or a backend does. `waits`: it may let the other one begin. `rough`: it may
    well end early. `many`: how many clients there are; together they should not send too much."""
    largest = max(buffers)
    size = _size(random, largest) if many < 7 else random.randint(1, 1 + largest // 2)
    stall = None
    if random.random() < 0.15:
        stall = (random.randrange(size + 2 * largest), random.choice((0.01, 0.3, 3.0)))
    slow = random.random() < 0.2
    return Script(
        data=stream_of(number, size),
        piece=random.choice((100, 1000, 16_384, largest, 4 * largest)) + size // 50,
        pause=random.choice((0.0, 0.0, 0.0, 1e-4, 0.01)),
        waits=random.choice((0, 1, 100)) if waits else 0,
        reads=(size + largest) // 30 if slow else random.choice((4096, 65_536, 1 << 20)),
        rest=random.choice((1e-4, 2e-3, 0.05)) if slow else 0.0,
        stall=stall,
        end=random.choice((End.FIN,) * 10 + (End.CLOSE, End.CLOSE, End.RESET)),
        end_after=random.choice((0.0, 0.0, 0.0, 1e-4, 0.2, 2.0)),
        gives_up=_gives_up(random, rough=rough),
    )


def _arrival(random: Random) -> float:
    return random.choice((0.0, 0.0, random.random() * 0.001, random.random() * 2))


def _gives_up(random: Random, *, rough: bool) -> float | None:
    if rough:
        return random.choice((None, 1e-4, 3e-4, 1e-3, random.random() * 0.02))
    return random.choice((1e-4, 1e-3, 0.02, 1.0, 4.0)) if random.random() < 0.1 else None


def _size(random: Random, largest: int) -> int:
    die = random.random()
    if die < 0.08:
        return 0
    if die < 0.45:
        return random.randint(1, 300)
    if die < 0.55:
        return 16_384 * random.randint(1, 3)
    if die < 0.85:
        return random.randint(1, 3 * largest)
    return random.randint(1, 12) * min(largest, 131_072)


def _steps(random: Random, services: int, mode: Mode) -> tuple[Step, ...]:
    steps: list[Step] = []
    if mode == "udp" and random.random() < 0.4:
        for _ in range(random.choice((1, 2, 4))):
            at = random.choice((random.random() * 0.01, random.random()))
            backend = random.randrange(3)
            service = random.randrange(services)
            steps.append(Step(at=at, what="turn", service=service, backend=backend))
    if random.random() < 0.3:
        for _ in range(random.choice((1, 2, 3))):
            _add_step(random, steps, random.randrange(services))
    return tuple(sorted(steps, key=lambda step: step.at))


def _detaching(seed: str, mode: Mode) -> tuple[Step, ...]:
    """Steps of their own chance, so that scenarios are otherwise what they were without them."""
    random = Random(f"detach {mode} {seed}")
    if mode == "udp" or random.random() < 0.6:
        return ()
    times = (
        random.choice((random.random() * 0.002, random.random() * 0.02, random.random()))
        for _ in range(random.choice((1, 2, 4, 8)))
    )
    return tuple(
        Step(at=at, what="detach", service=0, backend=random.randrange(12)) for at in sorted(times)
    )


def _on_paths(drawn: Scenario) -> Scenario:
    """What paths do with segments, by a chance of its own."""
    random = Random(f"paths {drawn.mode} {drawn.seed}")
    return replace(
        drawn,
        mtu=random.choice((65_535, 65_535, 1500, 600)),
        segments=random.random() < 0.9,
        narrows=0.05 * random.random() if random.random() < 0.15 else 0.0,
    )


def _with_pods(drawn: Scenario) -> Scenario:
    """By a chance of its own, too."""
    random = Random(f"pods {drawn.mode} {drawn.seed}")
    if random.random() < 0.6:
        return drawn
    services = range(len(drawn.services))
    return replace(
        drawn, pods=True, astray=tuple(each for each in services if random.random() < 0.5)
    )


def _add_step(random: Random, steps: list[Step], service: int) -> None:
    at = random.choice((random.random() * 0.002, random.random(), 3 * random.random()))
    what = random.choice(("update", "update", "update", "close", "pause", "drain", "collect"))
    grace = random.choice((0.0, 0.0, 0.001, 0.5, 5.0))
    if what == "close":
        steps.append(Step(at=at, what="close", service=service, grace=grace))
        if random.random() < 0.5:
            later = at + random.random()
            steps.append(Step(at=later, what="reopen", service=service))
    elif what == "pause":
        steps.append(Step(at=at, what="pause", service=service))
        steps.append(Step(at=at + random.random(), what="resume", service=service))
    elif what == "drain":
        steps.append(Step(at=at, what="drain", service=service))
    elif what == "collect":
        steps.append(Step(at=at, what="collect", service=service))
    else:
        steps.append(Step(at=at, what="update", service=service))
