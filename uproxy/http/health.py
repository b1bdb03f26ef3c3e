"""The endpoints that load balancers, kubelet and operators probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

from aiohttp import web

from uproxy.config.settings import Address
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.report.health import HealthAnswer, ProxyHealth, service_health
from uproxy.core.report.readiness import Reason, kinds
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.routing.service_routes import HealthCheck
from uproxy.http.connections import ConnectionLimit
from uproxy.http.readyz import Notes, readyz_page
from uproxy.http.server import Answer, HttpServer, ServeError

Clock = Callable[[], float]
"""Seconds."""

_CONNECTIONS = 48
"""At a time, over the health check node ports of all Services."""


def healthz_app(
    health: ProxyHealth,
    telemetry: Telemetry,
    *,
    node_eligible: Callable[[], bool],
    not_ready: Callable[[], Sequence[Reason]],
    notes: Notes = tuple,
    monotonic: Clock = time.monotonic,
    wall: Clock = time.time,
) -> web.Application:
    """/healthz, /livez and /readyz, for any method, as in kube-proxy; everything else is 404.

    `not_ready` returns the reasons why clients are not served as they should be; empty: ready. This
    address, which anyone may reach, shows only their kinds; the metrics address shows all of them.
    """

    async def healthz(_: web.Request) -> web.Response:
        answer = health.healthz(now=monotonic(), wall=wall(), node_eligible=node_eligible())
        telemetry.probe_answered("healthz", answer.status)
        return _response(answer)

    async def livez(_: web.Request) -> web.Response:
        answer = health.livez(now=monotonic(), wall=wall())
        telemetry.probe_answered("livez", answer.status)
        return _response(answer)

    app = web.Application()
    app.router.add_route("*", "/healthz", healthz)
    app.router.add_route("*", "/livez", livez)
    app.router.add_route("*", "/readyz", readyz_page(not_ready, notes, lines_of=kinds))
    return app


class _Key(NamedTuple):
    service: ObjectName
    family: Family


class _Place(NamedTuple):
    port: int
    hosts: tuple[str, ...]


class _Serving(NamedTuple):
    place: _Place
    server: HttpServer


class ServiceHealthServers:
    """The healthCheckNodePorts of all Services: one server for each Service and family.

    A load balancer probes with the IP family that it forwards, so each family has a server of its
    own, which answers for the endpoints of that family. If one cannot be opened, the other still
    answers.
    """

    def __init__(
        self,
        hosts: Callable[[Family], Sequence[str]],
        *,
        healthy: Callable[[], bool],
        new_server: Callable[..., HttpServer] = HttpServer,
    ) -> None:
        """`hosts` returns where to listen, and is called at each sync: the addresses of NodePorts,
        of which "::" is IPv6 only. `healthy`: the proxy's own health, called at each probe.
        `new_server` makes an HttpServer."""
        self._new_server = new_server
        self._hosts = hosts
        self._healthy = healthy
        self._counts: dict[_Key, int] = {}
        self._serving: dict[_Key, _Serving] = {}
        self._failed: dict[_Key, str] = {}
        self._limit = ConnectionLimit(_CONNECTIONS)

    def __repr__(self) -> str:
        return f"<ServiceHealthServers {len(self._serving)} open {len(self._failed)} failed>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sync({})

    @property
    def reasons(self) -> Mapping[ObjectName, str]:
        """Why the port of a Service could not be opened, or not for every family."""
        reasons: dict[ObjectName, str] = {}
        for (service, _), reason in sorted(self._failed.items()):
            earlier = reasons.get(service)
            reasons[service] = f"{earlier}; {reason}" if earlier else reason
        return reasons

    async def sync(self, wanted: Mapping[ObjectName, HealthCheck]) -> None:
        """Serve exactly these health checks: open, move and close ports, and answer with the new
        counts from now on.

        A port that cannot be opened is in `reasons`, and the next sync tries it again.
        """
        places = self._places(wanted)
        # Before any await: a probe that arrives while its Service is being removed must find no
        # endpoints, and gets 503.
        self._counts = {key: wanted[key.service].counts[key.family] for key in places}
        self._failed = {}
        # All that changes is closed before anything is opened: two Services may have exchanged
        # their ports, and a port that is still open for the one could not be opened for the other.
        for key, serving in list(self._serving.items()):
            if places.get(key) != serving.place:
                del self._serving[key]
                await serving.server.close()
        for key, place in places.items():
            if key not in self._serving:
                await self._open(key, place)

    def _places(self, wanted: Mapping[ObjectName, HealthCheck]) -> dict[_Key, _Place]:
        families = {family for check in wanted.values() for family in check.counts}
        hosts = {family: tuple(self._hosts(family)) for family in families}
        return {
            _Key(service, family): _Place(check.port, hosts[family])
            for service, check in wanted.items()
            for family in check.counts
        }

    async def _open(self, key: _Key, place: _Place) -> None:
        addresses = [Address(host, place.port) for host in place.hosts]
        name = f"health check of {key.service}"
        server = self._new_server(self._answer(key), addresses, name=name, limit=self._limit)
        try:
            await server.open()
        except ServeError as error:
            self._failed[key] = str(error)
        else:
            self._serving[key] = _Serving(place, server)

    def _answer(self, key: _Key) -> Answer:
        async def answer(_: web.BaseRequest) -> web.Response:
            count = self._counts.get(key, 0)
            return _response(
                service_health(key.service, local_endpoints=count, healthy=self._healthy())
            )

        return answer


def _response(answer: HealthAnswer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
