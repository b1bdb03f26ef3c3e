"""What the control process and a worker tell each other: every message, and when it is sent.

A worker is told its `Settings` first, then `LocalClients` and an `Open` for each frontend; from
then on only what changes. It answers `Ready` once it has its settings, sends a `Report` at least
once a second, `Unserved` while it lacks a listening socket, and `Records` of flows when it is asked
for them. Asked to `Drain`, it says `Drained` once.

`channel` puts messages on a socket. Both ends always run the same version of uproxy, so fields may
be added and renamed freely.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.counters import Counters
from uproxy.core.flows.flow_record import FlowRecord
from uproxy.core.ip import Family
from uproxy.core.route import Backend, Frontend, Route, ServicePortName


class Settings(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Control to worker: the first message. When the configuration is reloaded, it is sent again,
    with the same `worker`, `workers` and `report_interval`."""

    worker: int
    """Index of the worker, from 0."""
    workers: int
    """Number of workers."""
    max_flows: int
    """For this worker alone."""
    udp_timeout: float
    tcp_idle_timeout: float
    half_close_timeout: float
    report_interval: float = 0.5
    """Seconds between reports of counters; every other one comes even if there is nothing new, as
    a sign of life."""
    busy_poll: bool = False
    """Whether the worker may look for completions before it sleeps."""
    flow_log_every: int = 0
    """The worker sends the records of every n-th flow and of all that ended badly; 0: of none,
    unless it is asked to."""


class Witness(NamedTuple):
    """A backend whose reply to the address of a pod has come back to this node, which shows that
    replies on its path do."""

    path: str
    """See `Locality.path`."""
    owner: ServicePortName
    backend: Backend
    pod: str


class Astray(NamedTuple):
    """A Service port of which a backend has answered the node, and not a pod's address."""

    port: ServicePortName
    path: str
    """The one between that pod and that backend."""


class LocalClients(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: which clients count as this node or as a pod of the cluster.

    With externalTrafficPolicy Local they may use all endpoints, as in kube-proxy: the policy is for
    clients from outside. It is sent after `Settings`, and whenever it changes.
    """

    addresses: tuple[str, ...]
    """Addresses of this node."""
    networks: tuple[str, ...]
    """CIDRs of pods."""
    preserved: tuple[Family, ...] = ()
    """Families in which backends can be shown the addresses of clients: those of all other clients
    if the backends are local, and those of `pods`."""
    pods: tuple[str, ...] = ()
    """CIDRs of the pods that live on this node. Their addresses can be shown to any backend, as
    replies to them come by this node."""
    switched: tuple[str, ...] = ()
    """CIDRs, each behind one bridge that forwards replies between two of its pods past the IP
    stack. A pod's address is not shown to a backend in the same one."""
    astray: tuple[ServicePortName, ...] = ()
    """Service ports from whose backends replies to pods' addresses have not come back. Those
    backends see the node's address."""
    witnesses: tuple[Witness, ...] = ()
    """One for each path on which any worker knows that replies come back."""


class Open(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: serve a frontend on the listening socket that comes with this message.

    A frontend without usable backends is opened as well, so that its port stays taken. Where the
    worker serves the frontend already, it treats this as an `Update` and closes the descriptor: a
    repeated `Open` after a lost descriptor must not make a second listener.
    """

    route: Route
    steered: bool = True
    """Whether each client of a frontend with session affinity always comes to the same worker. A
    few kernels cannot be told to see to it."""


class Update(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: the route of a frontend has changed. If it has usable backends again, the
    worker accepts again."""

    route: Route
    steered: bool = True
    """See `Open`."""


class Close(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: stop serving a frontend. Its TCP flows get `grace` seconds to end by
    themselves, its UDP flows end now."""

    frontend: Frontend
    grace: float


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: accept nothing more, keep relaying, and say `Drained` when the last flow
    has ended. It is sent when the program stops."""


class End(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: end all flows, report them, and end. If the channel ends without this,
    nothing of that is reported."""


class RecordsWanted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Control to worker: send `Records` of the flows that have ended."""

    request: int
    """Comes back with the answer."""
    after: int
    """Only records with a greater number."""
    most: int
    """The latest so many."""
    only_bad: bool = False
    service: tuple[str, str] | None = None
    """Namespace and name, of which "" is any; None: all."""


ToWorker = Settings | LocalClients | Open | Update | Close | Drain | End | RecordsWanted


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Worker to control: the worker runs and has read its settings. It is the first answer."""

    engine: str = ""
    """What it relays with: "io_uring" or "epoll"."""


class Report(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Worker to control, see `report_interval`: what was counted since the last report."""

    ports: list[tuple[ServicePortName, Counters]]
    """Service ports of which any counter has changed. `active` is absolute, the others are
    differences."""
    active: int
    """All flows of the worker."""
    flow_limit: int = 0
    """The flows that it can have, where its limit of open files allows fewer than its share of
    --max-flows; else 0."""
    astray: list[Astray] = []
    """Each is reported once, and again after it was in `LocalClients.astray` and is no longer."""
    witnesses: list[Witness] = []
    """For paths that have none in `LocalClients.witnesses`; one for each."""
    lost: list[Witness] = []
    """Those that have not answered when they were probed, or whose Service or pod is gone."""
    backends: list[tuple[ServicePortName, Backend, BackendCounts]] = []
    """Backends of which anything has changed, as for `ports`."""


class Unserved(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Worker to control: the `Open`s of these frontends could not be carried out, mostly because no
    descriptor was free for them. The control process sends them again. Empty: all are served."""

    frontends: list[Frontend]


class Drained(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Worker to control, once after `Drain`: the worker has no flow left."""


class Records(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Worker to control: records of flows that have ended, the oldest first."""

    records: list[FlowRecord]
    request: int = 0
    """That of the `RecordsWanted` which this answers; 0: they are for the flow log."""
    last: bool = True
    """Whether no more of this answer follow."""
    left_out: int = 0
    """For the flow log: records that it did not get since the last message, as there were too
    many. With the last message of an answer: earlier ones that were wanted too, as far as they can
    be counted."""
    seen: int = 0
    """With the last message of an answer: the number of the last record that there was, wanted or
    not. So the same ones need not be looked at again."""


FromWorker = Report | Ready | Unserved | Drained | Records
