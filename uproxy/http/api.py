"""Everything on the metrics address: /metrics, /proxyMode, /configz, /healthz, /readyz, the status
as JSON and as a page. Only GET and HEAD are answered, and nothing is ever changed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

import uproxy
from uproxy.core.printable import printable, printable_json
from uproxy.core.report.backends import CountedBackends
from uproxy.core.report.flow_format import FlowFilter, FlowsView, parse_flow_filter
from uproxy.core.report.history import PERIOD, HistoryView, parse_after
from uproxy.core.report.readiness import Reason, texts
from uproxy.core.report.status import Status
from uproxy.core.report.status_format import (
    ServiceLabels,
    ServiceNamesView,
    parse_filter,
    status_view,
)
from uproxy.core.report.summary import summary_view
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.allowed_hosts import answers_to
from uproxy.http.compression import compress
from uproxy.http.long_answers import LongAnswers, Page
from uproxy.http.metrics import metrics_page
from uproxy.http.page_files import page_files
from uproxy.http.ports import PortsOf, add_ports
from uproxy.http.readyz import Notes, readyz_page

FindFlows = Callable[[FlowFilter], Awaitable[FlowsView]]

_LONGEST_NAME = 253
"""Characters of a DNS name; a longer name is cut off where it is repeated to the client."""
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_FRESH = {"Cache-Control": "no-store"}


async def _no_flows(_: FlowFilter) -> FlowsView:
    return FlowsView([], "", 0, [])


def _no_history(_: float) -> HistoryView:
    return HistoryView(PERIOD, [], [])


def api_app(
    status: Callable[[], Status],
    telemetry: Telemetry,
    *,
    service_labels: Callable[[], ServiceLabels] = dict,
    ports_of: PortsOf = lambda *_: (),
    counted_backends: Callable[[], CountedBackends | None] = lambda: None,
    names: Container[str] = frozenset(),
    not_ready: Callable[[], Sequence[Reason]] = tuple,
    notes: Notes = tuple,
    settings: Callable[[], Mapping[str, Any]] = dict,
    flows: FindFlows = _no_flows,
    history: Callable[[float], HistoryView] = _no_history,
    started: float = 0.0,
    version: str = uproxy.__version__,
) -> web.Application:
    """The application, which answers at any time, also before the first sync.

    `status` is called for each request; `service_labels`, `ports_of` and `counted_backends`, which
    are those with metrics of their own, for those that need them.
    /readyz is that of the health port, but with the text of each reason. `names`: host names by
    which requests may address this server, besides IP addresses; see `allowed_hosts`. `settings`:
    what /configz shows. `flows` asks the workers for flows that have ended. `history` is given a
    Unix time, after which samples are wanted; `started` is one, too.
    """
    long = LongAnswers()
    metrics = metrics_page(telemetry, status, counted_backends, version=version)
    app = web.Application(middlewares=[_only_for(names)])
    for path, page in (
        *page_files(),
        (
            "/metrics",
            long(metrics),
        ),
        ("/proxyMode", _text("userspace")),
        ("/configz", _json(settings)),
        ("/healthz", _text("ok")),
        ("/readyz", readyz_page(not_ready, notes, lines_of=texts)),
        ("/api/v1/routes", long(_routes(status, service_labels, ports_of))),
        ("/api/v1/summary", long.shared(_summary(status, version, started))),
        ("/api/v1/history", _history(history)),
        ("/api/v1/services", long(_services(service_labels))),
        # Not in one queue with the others, which a worker that hangs would keep waiting.
        ("/api/v1/flows", LongAnswers()(_flows(flows))),
    ):
        app.router.add_get(path, page)
    return app


def _only_for(names: Container[str]) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall(hdrs.HOST, ())
        if answers_to(hosts, names):
            return await handler(request)
        text = printable(
            f"the host name {', '.join(hosts)[:_LONGEST_NAME]!r} is refused, as protection against "
            "DNS rebinding: use an IP address, localhost or the name of the node, or allow the "
            "name with --metrics-allowed-hosts"
        )
        return web.Response(status=421, text=f"{text}\n", headers=_NOSNIFF)

    return check


def _text(text: str) -> Page:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=text, headers=_NOSNIFF)

    return page


def _json(content: Callable[[], Mapping[str, Any]]) -> Page:
    async def page(_: web.Request) -> web.Response:
        body = printable_json(_encoded(content()))
        return web.Response(body=body, content_type="application/json", headers=_NOSNIFF)

    return page


def _encoded(content: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(content)
    except UnicodeEncodeError:
        # A path need not be UTF-8. This escapes what it has instead, and is slower.
        return json.dumps(content).encode()


def _routes(
    status: Callable[[], Status], service_labels: Callable[[], ServiceLabels], ports_of: PortsOf
) -> Page:
    async def page(request: web.Request) -> web.Response:
        try:
            wanted = parse_filter(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n", headers=_NOSNIFF)
        labels = service_labels() if wanted.labels else {}
        found = status()
        view = status_view(found, wanted, labels)
        if wanted.backends:
            await add_ports(view, found.counters, ports_of)
        return _answer(request, view)

    return page


def _flows(find: FindFlows) -> Page:
    async def page(request: web.Request) -> web.Response:
        try:
            wanted = parse_flow_filter(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n", headers=_NOSNIFF)
        return _answer(request, await find(wanted))

    return page


def _summary(status: Callable[[], Status], version: str, started: float) -> Callable[[], bytes]:
    def summary() -> bytes:
        view = summary_view(status(), version=version, started=started)
        return printable_json(msgspec.json.encode(view))

    return summary


def _history(history: Callable[[float], HistoryView]) -> Page:
    async def page(request: web.Request) -> web.Response:
        try:
            after = parse_after(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n", headers=_NOSNIFF)
        return _answer(request, history(after))

    return page


def _services(service_labels: Callable[[], ServiceLabels]) -> Page:
    async def page(request: web.Request) -> web.Response:
        return _answer(request, ServiceNamesView(sorted(map(str, service_labels()))))

    return page


def _answer(request: web.Request, view: msgspec.Struct) -> web.Response:
    response = web.Response(
        body=printable_json(msgspec.json.encode(view)),
        content_type="application/json",
        headers={**_NOSNIFF, **_FRESH},
    )
    compress(request, response)
    return response
