"""What a seed stands for: who does what, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, Literal

from tests.simulation.network import Reply
from tests.simulation.peers import End, Script, stream_of
from tests.simulation.udp_peers import Replying, Sending
from tests.simulation.world import Fault
from uproxy.core.route import BalancerKind, ProxyProtocol

Mode = Literal["ring", "epoll", "splice", "udp"]
MODES: Final[tuple[Mode, ...]] = ("ring", "epoll", "splice", "udp")

_BUFFERS: Final = (
    (512, 2048, 4096),
    (2048, 4096, 16_384),
    (4096, 16_384, 65_536),
    (16_384, 65_536, 262_144),
    (65_536, 262_144, 1 << 20),
)
"""Bytes of socket buffers, one row for a simulation."""

HARMLESS: Final = (
    Fault.SHORT_SEND,
    Fault.FULL_SEND,
    Fault.SPURIOUS_EVENT,
    Fault.SHUFFLED_EVENTS,
    Fault.NO_BUFFERS,
    Fault.RECEIVE_ENDS,
    Fault.LATE_WORK,
    Fault.PART_SUBMITTED,
    Fault.ENTER_REFUSED,
    Fault.SHORT_SPLICE,
)
"""Faults that no flow must suffer from."""

HARMFUL: Final = tuple(fault for fault in Fault if fault not in HARMLESS)


@dataclass(frozen=True, kw_only=True)
class Service:
    """A frontend with its backends."""

    backends: int
    replies: tuple[Reply, ...]
    balancer: BalancerKind
    proxy_protocol: ProxyProtocol | None
    affinity: int
    protocol: Literal["TCP", "UDP"]
    replying: Replying


@dataclass(frozen=True, kw_only=True)
class Client:
    """A TCP client: when it comes, where to, and what it and its backend do."""

    at: float
    service: int
    script: Script


@dataclass(frozen=True, kw_only=True)
class UdpSender:
    """A UDP client."""

    service: int
    sending: Sending


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that the control process does."""

    at: float
    what: Literal["update", "close", "reopen", "pause", "resume", "drain", "collect", "turn"]
    """turn: a backend refuses from now on, or no longer."""
    service: int
    grace: float = 0.0
    backend: int = 0


@dataclass(frozen=True, kw_only=True)
class Scenario:
    seed: str
    mode: Mode
    on_ring: bool
    """Whether the loop is that of a ring, whatever relays."""
    rates: dict[Fault, float]
    buffers: tuple[int, ...]
    ring_entries: int
    ring_buffers: int
    datagram_buffers: int
    limits: bool
    """Whether receives of the ring may have a limit (Linux 6.17)."""
    largest_pipe: int
    busy_poll: bool
    services: tuple[Service, ...]
    clients: tuple[Client, ...]
    senders: tuple[UdpSender, ...] = ()
    steps: tuple[Step, ...]
    max_flows: int
    idle_timeout: float
    half_close_timeout: float
    spare_descriptors: int
    """How many the process may open beyond those it has at first."""
    answer: Script | None = None
    """What backends do, but for the bytes that they send; None: anything."""
    random_seed: int
    """Of what backends do, and of everything else that is decided on the way."""

    @property
    def gentle(self) -> bool:
        """Whether every flow has to be served completely."""
        return (
            not any(fault in HARMFUL for fault in self.rates)
            and not any(step.what != "update" for step in self.steps)
            and not self.idle_timeout
            and not self.half_close_timeout
            and self.spare_descriptors > 100
            and not (self.senders and self.max_flows < 100)
            and all(set(service.replies) == {Reply.ACCEPTS} for service in self.services)
        )

    def describe(self) -> str:
        """For who reads a trace."""
        lines = [
            f"faults: {', '.join(f'{fault.name} {rate}' for fault, rate in self.rates.items())}",
            f"socket buffers {self.buffers}, ring of {self.ring_entries} entries and"
            f" {self.ring_buffers} buffers, {'with' if self.limits else 'without'} limits,"
            f" pipes up to {self.largest_pipe}, max_flows {self.max_flows},"
            f" {self.spare_descriptors} descriptors to spare,"
            f" idle timeout {self.idle_timeout}, half-close timeout {self.half_close_timeout}",
        ]
        for number, client in enumerate(self.clients):
            lines.append(f"client {number} at {client.at * 1e3:.3f} ms: {client.script}")
        lines += [f"{sender}" for sender in self.senders]
        lines += [f"{step}" for step in self.steps]
        return "\n".join(lines)


def plain(seed: int, mode: Mode, **different: Any) -> Scenario:
    """One client, one backend and nothing that goes wrong, unless said otherwise; for tests of
    what was found once."""
    service = Service(
        backends=1,
        replies=(Reply.ACCEPTS,),
        balancer=BalancerKind.ROUND_ROBIN,
        proxy_protocol=None,
        affinity=0,
        protocol="UDP" if mode == "udp" else "TCP",
        replying=Replying(replies=(1,), sizes=(64,), delay=0.001),
    )
    client = Client(at=0.0, service=0, script=saying(stream_of(1, 1000)))
    sender = UdpSender(service=0, sending=Sending(at=(0.0, 0.01), sizes=(64, 64), port=40_000))
    ordinary = Scenario(
        seed=str(seed),
        mode=mode,
        on_ring=mode in ("ring", "udp"),
        rates={},
        buffers=(65_536,),
        ring_entries=16,
        ring_buffers=16,
        datagram_buffers=16,
        limits=True,
        largest_pipe=1 << 20,
        busy_poll=False,
        services=(service,),
        clients=() if mode == "udp" else (client,),
        senders=(sender,) if mode == "udp" else (),
        steps=(),
        max_flows=1000,
        idle_timeout=0.0,
        half_close_timeout=0.0,
        spare_descriptors=1000,
        answer=saying(b""),
        random_seed=seed,
    )
    return replace(ordinary, **different)


def saying(data: bytes, **different: Any) -> Script:
    """A script that sends this in one go, reads all there is, and ends by a FIN."""
    ordinary = Script(data=data, piece=len(data) + 1, pause=0.0, reads=1 << 20, rest=0.0)
    return replace(ordinary, **different)


def draw(seed: str, mode: Mode) -> Scenario:
    """Anything that may happen, but most of it seldom: a simulation in which everything goes wrong
    at once gets nowhere."""
    random = Random(f"{mode} {seed}")
    buffers = random.choice(_BUFFERS)
    services = tuple(_service(random, mode) for _ in range(random.choice((1, 1, 1, 2))))
    count = random.choice((1, 1, 2, 2, 3, 4, 6))
    clients: tuple[Client, ...] = ()
    senders: tuple[UdpSender, ...] = ()
    if mode == "udp":
        senders = tuple(_sender(random, number, services) for number in range(count))
    else:
        clients = tuple(_client(random, number, services, buffers) for number in range(count))
    return Scenario(
        seed=seed,
        mode=mode,
        on_ring=mode == "ring" or (mode in ("splice", "udp") and random.random() < 0.5),
        rates=_rates(random),
        buffers=buffers,
        ring_entries=random.choice((4, 8, 16, 64)),
        ring_buffers=random.choice((4, 8, 16, 64)),
        datagram_buffers=random.choice((2, 4, 16)),
        limits=random.random() < 0.6,
        largest_pipe=random.choice((1 << 16, 1 << 17, 1 << 20)),
        busy_poll=random.random() < 0.3,
        services=services,
        clients=clients,
        senders=senders,
        steps=_steps(random, len(services), mode),
        max_flows=random.choice((1000, 1000, 1000, 2)),
        idle_timeout=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 2.0)),
        half_close_timeout=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 1.0)),
        spare_descriptors=random.choice((1000, 1000, 1000, 1000, 1000, 4, 8)),
        random_seed=random.getrandbits(48),
    )


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
    random: Random, number: int, services: tuple[Service, ...], buffers: tuple[int, ...]
) -> Client:
    return Client(
        at=random.choice((0.0, 0.0, random.random() * 0.001, random.random() * 2)),
        service=random.randrange(len(services)),
        script=script(random, number + 1, buffers, waits=False),
    )


def script(random: Random, number: int, buffers: tuple[int, ...], *, waits: bool) -> Script:
    """What a client or a backend does. `waits`: it may let the other one begin."""
    size = _size(random, buffers[-1])
    largest = max(buffers)
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
        gives_up=random.choice((1e-4, 1e-3, 0.02, 1.0, 4.0)) if random.random() < 0.12 else None,
    )


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
