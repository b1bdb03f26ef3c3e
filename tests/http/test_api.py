"""The endpoints of the metrics address, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote

import msgspec
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.flow_records import record
from tests.http.client import fetch
from tests.http.statuses import DNS, EMPTY, FULL, KUBIA
from tests.nasty import NASTY, is_fit_to_print
from uproxy.config.settings import Address
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.pod_history import Place
from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.printable import printable
from uproxy.core.report.backends import BackendState, BackendStatus, CountedBackends, PortStatus
from uproxy.core.report.flow_format import Ended, FlowFilter, FlowsView, flow_view
from uproxy.core.report.history import HistoryView, Sample
from uproxy.core.report.readiness import Reason, ReasonKind
from uproxy.core.report.recent_events import EventView
from uproxy.core.report.status import Status
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.route import Backend, ServicePortName
from uproxy.http.allowed_hosts import known_names
from uproxy.http.api import api_app
from uproxy.http.server import HttpServer

JSON_TEXTS = {name: text for name, text in NASTY.items() if name != "surrogate"}
EVENTS = [EventView(5.0, "Warning", "PortConflict", "Service shop/web", "\u202etaken")]
PATHS = ["/", "/metrics", "/proxyMode", "/configz", "/healthz", "/readyz"]
PATHS += ["/api/v1/routes", "/api/v1/services", "/api/v1/flows"]
PATHS += ["/api/v1/summary", "/api/v1/history"]


async def _flows(wanted: FlowFilter) -> FlowsView:
    """One flow, from whatever is asked for."""
    owner = ServicePortName(wanted.namespace, wanted.service, "http", "TCP")
    flow = flow_view(Ended(record(7, owner=owner), worker=1), Place("web-0", "node-7"))
    return FlowsView([flow], "1-4711-7", wanted.limit, [])


def ports_of(service: ObjectName, now: float) -> list[PortStatus]:
    """A backend of each port, and a port that has no frontend."""
    assert now > 0
    names = [each for each in (KUBIA, DNS) if ObjectName(*each[:2]) == service]
    backend = BackendStatus(
        backend=Backend("127.0.1.1", 8080),
        pod="kubia-1",
        state=BackendState.USED,
        counts=BackendCounts(failures={"ECONNREFUSED": 48}),
    )
    ports = [PortStatus(each, 80, [backend]) for each in names]
    return [*ports, PortStatus(KUBIA._replace(port="unserved"), 81, [])]


@asynccontextmanager
async def serving(
    status: Status = FULL,
    not_ready: Sequence[Reason] = (),
    notes: Sequence[Reason] = (),
    counted: CountedBackends | None = None,
    node: str = "node-7",
) -> AsyncIterator[Address]:
    telemetry = Telemetry()
    telemetry.sync_done("IPv4", 0.25, 1000.0, full=True)
    app = api_app(
        lambda: status,
        telemetry,
        service_labels=lambda: {
            ObjectName("prod", "web"): {},
            ObjectName("default", "kubia"): {"app": "kubia"},
        },
        ports_of=ports_of,
        counted_backends=lambda: counted,
        names=known_names("node-7"),
        not_ready=lambda: not_ready,
        notes=lambda: notes,
        settings=lambda: {"hostnameOverride": node},
        flows=_flows,
        history=lambda after: HistoryView(2.0, [Sample(after + 1, 2.5, 3, 4, 5, 6)], EVENTS),
        started=77.5,
        version="1.2.3",
    )
    async with HttpServer(app, [Address("127.0.0.1", 0)], name="metrics") as server:
        yield server.bound[0]


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/proxyMode", b"userspace", "text/plain; charset=utf-8"),
        ("/healthz", b"ok", "text/plain; charset=utf-8"),
    ],
)
async def test_texts(path: str, body: bytes, content_type: str) -> None:
    async with serving() as address:
        answer = await fetch(address, path)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_names_of_services() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/services")
    assert answer.json == {"services": ["default/kubia", "prod/web"]}
    assert answer.headers["Cache-Control"] == "no-store"


async def test_flows() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/flows?namespace=prod&service=web&bad=true&limit=3")
    (flow,) = answer.json["flows"]
    assert (flow["service"], flow["pod"], flow["number"]) == ("prod/web", "web-0", 7)
    assert (answer.json["cursor"], answer.json["leftOut"]) == ("1-4711-7", 3)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_flows_that_cannot_be_asked_for() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/flows?limit=many")
    assert (answer.status, answer.body) == (400, b"limit is 'many': use a number from 1 to 10000\n")


async def test_routes_by_labels() -> None:
    async with serving() as address:
        kubia = await fetch(address, "/api/v1/routes?labels=app+in+(kubia)")
        others = await fetch(address, "/api/v1/routes?labels=!app")
    assert {each["service"] for each in kubia.json["frontends"]} == {"default/kubia"}
    assert {each["service"] for each in others.json["frontends"]} == {"kube-system/dns"}


async def test_settings_with_a_path_that_is_not_utf8() -> None:
    async with serving(node="a\udcff") as address:
        answer = await fetch(address, "/configz")
    assert (answer.status, answer.body) == (200, rb'{"hostnameOverride": "a\udcff"}')


async def test_settings() -> None:
    async with serving() as address:
        answer = await fetch(address, "/configz")
    assert answer.json == {"hostnameOverride": "node-7"}
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("text", [*NASTY.values(), "shop/web: 10.0.0.7:80/TCP: in use"])
async def test_readyz_has_every_reason_in_full(text: str) -> None:
    reasons = [Reason(ReasonKind.STARTING, "waiting"), Reason(ReasonKind.FRONTEND, text)]
    async with serving(
        not_ready=reasons, notes=[Reason(ReasonKind.LAST_KNOWN, "from memory")]
    ) as address:
        answer = await fetch(address, "/readyz")
    assert answer.status == 503
    assert answer.body.decode() == f"waiting\n{printable(text)}\nfrom memory\n"


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
async def test_notes_are_fit_to_print(text: str) -> None:
    async with serving(notes=[Reason(ReasonKind.UNEXPECTED, text)]) as address:
        answer = await fetch(address, "/readyz")
    assert (answer.status, answer.body.decode()) == (200, f"ok\n{printable(text)}\n")


async def test_routes() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/routes")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert [each["frontend"] for each in answer.json["frontends"]] == [
            "10.96.0.7:80/TCP",
            "127.0.0.1:30123/TCP",
            "[fd00::a]:53/UDP",
        ]
        narrow = await fetch(address, "/api/v1/routes?namespace=default&service=kubia&state=failed")
        assert [each["state"] for each in narrow.json["frontends"]] == ["failed"]


async def test_summary() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/summary")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.json["node"], answer.json["version"], answer.json["started"]) == (
        "node-1",
        "1.2.3",
        77.5,
    )
    assert [each["service"] for each in answer.json["ports"]] == [
        "default/kubia",
        "kube-system/dns",
    ]


async def test_a_summary_that_has_not_changed_is_not_sent_again() -> None:
    async with serving() as address:
        first = await fetch(address, "/api/v1/summary")
        second = await fetch(address, "/api/v1/summary", If_None_Match=first.headers["Etag"])
        other = await fetch(address, "/api/v1/summary", If_None_Match='W/"0123"')
    assert first.headers["Cache-Control"] == second.headers["Cache-Control"] == "no-cache"
    assert (second.status, second.body) == (304, b"")
    assert second.headers["Etag"] == first.headers["Etag"]
    assert (other.status, other.body) == (200, first.body)


async def test_history() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/history?after=1000.5")
        wrong = await fetch(address, "/api/v1/history?after=x")
    assert answer.json["period"] == 2.0
    assert answer.json["samples"] == [
        {
            "time": 1001.5,
            "flows": 2.5,
            "activeFlows": 3,
            "clientBytes": 4.0,
            "backendBytes": 5.0,
            "failures": 6.0,
        }
    ]
    assert answer.json["events"][0]["regarding"] == "Service shop/web"
    assert is_fit_to_print(answer.body.decode())
    assert (wrong.status, wrong.body) == (400, b"after='x' is not a Unix time in seconds\n")


async def test_backends_only_where_they_are_asked_for() -> None:
    async with serving() as address:
        without = await fetch(address, "/api/v1/routes")
        answer = await fetch(address, "/api/v1/routes?backends=1")
        narrow = await fetch(address, "/api/v1/routes?backends=1&state=paused")
        wrong = await fetch(address, "/api/v1/routes?backends=2")
    assert (without.json["ports"], without.json["connectBuckets"]) == (None, None)
    ports = answer.json["ports"]
    assert [(each["service"], each["servicePort"], each["port"]) for each in ports] == [
        ("default/kubia", "http", 80),
        ("kube-system/dns", "", 80),
    ]
    assert ports[0]["counts"]["flows"] == 7, "those of the port"
    ((backend,), _) = (each["backends"] for each in ports)
    assert (backend["pod"], backend["failures"]) == ("kubia-1", {"ECONNREFUSED": 48})
    assert len(answer.json["connectBuckets"]) == 13
    assert [each["service"] for each in narrow.json["ports"]] == ["kube-system/dns"]
    assert wrong.status == 400


async def test_routes_before_the_first_sync() -> None:
    async with serving(EMPTY) as address:
        answer = await fetch(address, "/api/v1/routes")
    assert answer.status == 200
    assert (answer.json["synced"], answer.json["frontends"]) == (False, [])


async def test_routes_with_a_wrong_parameter() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/routes?stat=failed")
    assert answer.status == 400
    assert (
        answer.body
        == b"unknown parameter 'stat': use namespace, service, state, labels, backends\n"
    )
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_routes_with_a_repeated_parameter_take_the_first() -> None:
    async with serving() as address:
        answer = await fetch(address, "/api/v1/routes?state=failed&state=paused")
    assert [each["state"] for each in answer.json["frontends"]] == ["failed"]


async def test_text_is_escaped_as_json() -> None:
    reason = '</script><b>"\\\n\x00'
    frontend = msgspec.structs.replace(FULL.frontends[0], reason=reason)
    async with serving(msgspec.structs.replace(FULL, frontends=(frontend,))) as address:
        answer = await fetch(address, "/api/v1/routes")
    assert answer.json["frontends"][0]["reason"] == reason


@pytest.mark.parametrize("text", JSON_TEXTS.values(), ids=JSON_TEXTS)
async def test_routes_are_fit_to_print(text: str) -> None:
    frontend = msgspec.structs.replace(
        FULL.frontends[0], reason=text, owner=FULL.frontends[0].owner._replace(port=text)
    )
    async with serving(msgspec.structs.replace(FULL, frontends=(frontend,))) as address:
        answer = await fetch(address, "/api/v1/routes")
        wrong = await fetch(address, f"/api/v1/routes?{quote(text)}=1")
    assert is_fit_to_print(answer.body.decode())
    assert answer.json["frontends"][0]["reason"] == text
    assert wrong.status == 400
    assert is_fit_to_print(wrong.body.decode())


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0"])
@pytest.mark.parametrize("text", JSON_TEXTS.values(), ids=JSON_TEXTS)
async def test_metrics_are_fit_to_print(text: str, accept: str) -> None:
    owner = FULL.frontends[0].owner._replace(port=text)
    counters = {owner: FULL.counters[FULL.frontends[0].owner]}
    async with serving(msgspec.structs.replace(FULL, counters=counters)) as address:
        answer = await fetch(address, "/metrics", Accept=accept)
    assert is_fit_to_print(answer.body.decode())
    parse = parse_openmetrics if "openmetrics" in accept else parse_text
    (flows,) = [each for each in parse(answer.body.decode()) if each.name == "uproxy_flows"]
    assert flows.samples[0].labels["port"] == printable(text)


async def test_metrics_of_backends_only_where_they_are_asked_for() -> None:
    async with serving() as address:
        without = await fetch(address, "/metrics")
    assert b"per_backend" not in without.body
    async with serving(counted=CountedBackends([], left_out=7)) as address:
        answer = await fetch(address, "/metrics")
    assert b"\nuproxy_per_backend_left_out 7.0\n" in answer.body


async def test_metrics_in_the_plain_format() -> None:
    async with serving() as address:
        answer = await fetch(address, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.body.decode()
    assert (
        'uproxy_flows_total{namespace="default",port="http",protocol="TCP",service="kubia"} 7.0\n'
        in text
    )
    assert 'kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.256"}' in text
    assert "\nprocess_open_fds " in text
    assert "\n# HELP uproxy_frontends Frontends" in text
    assert {family.name for family in parse_text(text)} >= {"uproxy_flows", "uproxy_build_info"}


async def test_metrics_in_the_openmetrics_format() -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    async with serving() as address:
        answer = await fetch(address, "/metrics", Accept=accept)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")
    parsed = parse_openmetrics(answer.body.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in parsed}
    assert names >= {
        "uproxy_flows",
        "uproxy_dropped",
        "kubeproxy_network_programming_duration_seconds",
    }


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=abc",
        "application/openmetrics-text;version=",
        "application/openmetrics-text; version=-1.-1",
        "text/plain;version=1.0.0;escaping=nonsense",
        ";;=,,",
    ],
)
async def test_a_format_that_makes_no_sense_is_not_given(accept: str) -> None:
    async with serving() as address:
        answer = await fetch(address, "/metrics", Accept=accept)
    assert answer.status == 200
    assert b"uproxy_flows_total" in answer.body


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/routes"])
async def test_probes_get_their_turn_between_long_answers(path: str) -> None:
    """Each may take half a second: a dozen browsers must not stop the loop for all of theirs."""
    turns, asked_in = 0, list[int]()
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    def status() -> Status:
        asked_in.append(turns)
        return FULL

    app = api_app(status, Telemetry())
    async with HttpServer(app, [Address("127.0.0.1", 0)], name="metrics") as server:
        clients = [await asyncio.open_connection(*server.bound[0]) for _ in range(12)]
        turn()
        for _, writer in clients:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        for reader, writer in clients:
            assert b" 200 " in await reader.readline()
            writer.close()
    assert len(asked_in) == len(set(asked_in)) == 12


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/routes"])
async def test_long_answers_are_compressed_on_request(path: str) -> None:
    async with serving() as address:
        answer = await fetch(address, path, Accept_Encoding="gzip")
        plain = await fetch(address, path, Accept_Encoding="identity")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert b"kubia" in answer.body, "the client has unpacked it"


async def test_label_values_are_escaped() -> None:
    owner = FULL.frontends[0].owner._replace(name='a"b\\c\nd')
    counters = {owner: FULL.counters[FULL.frontends[0].owner]}
    async with serving(msgspec.structs.replace(FULL, counters=counters)) as address:
        answer = await fetch(address, "/metrics")
    assert rb'service="a\"b\\c\\nd"' in answer.body


@pytest.mark.parametrize("path", [*PATHS, "/x"])
async def test_a_name_that_leads_here_by_somebody_elses_doing_is_refused(path: str) -> None:
    """DNS rebinding: a web page whose own name has come to mean 127.0.0.1."""
    async with serving() as address:
        answer = await fetch(address, path, Host="evil.example:10249")
        assert answer.status == 421
        assert b"--metrics-allowed-hosts" in answer.body
        assert b"kubia" not in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "[::1]:1", "192.0.2.9", "node-7"])
@pytest.mark.parametrize("path", PATHS)
async def test_addresses_and_known_names_are_answered(path: str, host: str) -> None:
    async with serving() as address:
        assert (await fetch(address, path, Host=host)).status == 200


async def test_a_refused_name_is_fit_to_print_and_not_too_long() -> None:
    async with serving() as address:
        answer = await fetch(address, "/", Host="ev\xffil" * 1000)
    assert is_fit_to_print(answer.body.decode())
    assert len(answer.body) < 2000


@pytest.mark.parametrize("path", PATHS)
async def test_head(path: str) -> None:
    async with serving() as address:
        answer = await fetch(address, path, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_refused(path: str, method: str) -> None:
    async with serving() as address:
        answer = await fetch(address, path, method=method)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/x", "/metrics/", "/api", "/api/v1/routes/x", "/../etc/passwd"])
async def test_other_paths_are_404(path: str) -> None:
    async with serving() as address:
        assert (await fetch(address, path)).status == 404
