"""What a seed stands for: what clients, backends and the control process do, and what fails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tests.simulation.network import Reply
from tests.simulation.peers import Script, stream_of
from tests.simulation.udp_peers import Replying, Sending
from tests.simulation.world import Fault
from uproxy.core.route import BalancerKind, ProxyProtocol

Mode = Literal["ring", "epoll", "splice", "udp"]
MODES: Final[tuple[Mode, ...]] = ("ring", "epoll", "splice", "udp")

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
    what: Literal[
        "update", "close", "reopen", "pause", "resume", "drain", "collect", "turn", "detach"
    ]
    """turn: a backend refuses from now on, or no longer. detach: the flow with the number
    `backend` is taken from its mover."""
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
    ring_completions: int
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
    slowness: float = 1.0
    """How long the process takes for what it does, compared to others."""
    rough: bool = False
    """Whether most clients and backends give up early."""
    prompt: bool = False
    """Whether TCP clients do not have to wait for others."""
    crowded: bool = False
    """Whether there are more flows than may be at a time, and no more that need to be."""
    knows_limit: bool = False
    """Whether the process knows how many descriptors it may have."""
    pods: bool = False
    """Whether clients are pods of the node, which backends are to see."""
    astray: tuple[int, ...] = ()
    """Services whose backends' replies to pods go astray."""
    mtu: int = 65_535
    segments: bool = True
    """Whether paths take segments (UDP_SEGMENT)."""
    narrows: float = 0.0
    """When the MTU of all paths becomes smaller; 0: never."""
    answer: Script | None = None
    """What backends do, but for the bytes that they send; None: anything."""
    random_seed: int
    """Of what backends do, and of everything else that is decided on the way."""

    @property
    def gentle(self) -> bool:
        """Whether every flow has to be served completely."""
        return self.crowded or (
            not any(fault in HARMFUL for fault in self.rates)
            and not any(
                step.what not in ("update", "detach") or self.senders for step in self.steps
            )
            and not self.idle_timeout
            and not self.half_close_timeout
            and self.spare_descriptors > 100
            and not (self.senders and self.max_flows < 100)
            and all(set(service.replies) == {Reply.ACCEPTS} for service in self.services)
        )

    def describe(self) -> str:
        """For whoever reads a trace."""
        lines = [
            f"faults: {', '.join(f'{fault.name} {rate}' for fault, rate in self.rates.items())}",
            f"socket buffers {self.buffers}, ring of {self.ring_entries} entries,"
            f" {self.ring_completions} completions and {self.ring_buffers} buffers,"
            f" {'with' if self.limits else 'without'} limits,"
            f" pipes up to {self.largest_pipe}, max_flows {self.max_flows},"
            f" {self.spare_descriptors} descriptors to spare,"
            f" idle timeout {self.idle_timeout}, half-close timeout {self.half_close_timeout}",
        ]
        if self.pods:
            lines.append(f"clients are pods, and the replies of services {self.astray} go astray")
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
        ring_completions=32,
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
    ordinary = Script(data=data, piece=1 << 20, pause=0.0, reads=1 << 20, rest=0.0)
    return replace(ordinary, **different)
