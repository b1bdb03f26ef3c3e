"""Everything that Kubernetes' end-to-end tests, kubeadm and common dashboards read of kube-proxy.

A metric that could only be made up is not there: `ABSENT` says which, and why.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest

from tests.e2e.pods import pod, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import in_thread
from tests.ports import free_port

_E2E: Final = "e2e: Networking should check kube-proxy urls"
_NODE_PORTS: Final = "e2e: KubeProxy should update metric for ... localhost nodeports"
_MIXIN: Final = "kubernetes-mixin, dashboard Proxy: "


class Url(NamedTuple):
    """A page that is read with `curl -i http://localhost:PORT/PATH`."""

    reader: str
    port: Literal["health", "metrics"]
    path: str
    answer: str
    """A regular expression that the whole response has to match somewhere."""


URLS: Final = [
    Url(_E2E, "health", "/healthz", "200 OK"),
    Url(_E2E, "health", "/healthz", "lastUpdated"),
    Url(_E2E, "metrics", "/proxyMode", "^HTTP/1.1 200 "),
    # It is skipped unless this is "iptables".
    Url(_NODE_PORTS, "metrics", "/proxyMode", r"\nuserspace$"),
    Url("kubeadm, livenessProbe", "health", "/livez", "^HTTP/1.1 200 "),
    Url("load balancers of clouds", "health", "/healthz", '"nodeEligible":true'),
    Url("monitoring", "metrics", "/healthz", r"^HTTP/1.1 200 (.|\n)*\nok$"),
    Url("debugging", "metrics", "/configz", r'\n\{"kubeproxy.config.k8s.io":\{"apiVersion'),
    Url("Prometheus", "metrics", "/metrics", "^HTTP/1.1 200 (.|\n)*\nContent-Type: text/plain"),
]


class Series(NamedTuple):
    """A metric that a query asks for, with the labels by which it selects."""

    reader: str
    name: str
    labels: str = ""
    """A regular expression for them."""


SERIES: Final = [
    Series(f"{_MIXIN}Rules Sync Rate", "kubeproxy_sync_proxy_rules_duration_seconds_count"),
    Series(f"{_MIXIN}Rule Sync Latency", "kubeproxy_sync_proxy_rules_duration_seconds_bucket"),
    Series(
        f"{_MIXIN}Network Programming Rate", "kubeproxy_network_programming_duration_seconds_count"
    ),
    Series(
        f"{_MIXIN}Network Programming Latency",
        "kubeproxy_network_programming_duration_seconds_bucket",
        'le="300.0"',
    ),
    Series(f"{_MIXIN}Kube API Request Rate", "rest_client_requests_total", 'code="2..".*host='),
    Series(f"{_MIXIN}Kube API Request Rate", "rest_client_requests_total", 'code="4..".*host='),
    Series(
        f"{_MIXIN}Post Request Latency",
        "rest_client_request_duration_seconds_bucket",
        'verb="POST"',
    ),
    Series(
        f"{_MIXIN}Get Request Latency", "rest_client_request_duration_seconds_bucket", 'verb="GET"'
    ),
    Series(f"{_MIXIN}Memory", "process_resident_memory_bytes"),
    Series(f"{_MIXIN}CPU usage", "process_cpu_seconds_total"),
    # The same of the processes that move the bytes.
    Series("operators", "uproxy_worker_resident_memory_bytes", 'worker="1"'),
    Series("operators", "uproxy_worker_cpu_seconds_total", 'worker="1"'),
    Series("alerts on restarts", "process_start_time_seconds"),
    Series("alerts on descriptors", "process_open_fds"),
    Series("alerts on descriptors", "process_max_fds"),
    Series("alerts on hanging syncs", "kubeproxy_sync_proxy_rules_last_timestamp_seconds"),
    Series("alerts on hanging syncs", "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds"),
    Series(
        "alerts on policy Local without endpoints",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        'traffic_policy="external"',
    ),
    Series("scale tests", "kubeproxy_sync_proxy_rules_endpoint_changes_total"),
    Series("scale tests", "kubeproxy_sync_proxy_rules_service_changes_pending"),
    Series("probes", "kubeproxy_proxy_healthz_total", 'code="200"'),
    Series("probes", "kubeproxy_proxy_livez_total", 'code="200"'),
]
MAY_BE_ZERO: Final = ("_no_local_endpoints_total", "_pending", "_cpu_seconds_total")
ABSENT: Final = {
    "go_goroutines": "there are none",
    "kubernetes_build_info": "mixed versions raise an alert, and this is none of Kubernetes",
    "kubeproxy_sync_proxy_rules_iptables_total": "there are no rules",
    "kubeproxy_iptables_localhost_nodeports_accepted_packets_total": "packets are not counted",
}


@pytest.fixture(scope="module")
def uproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """It has served a change of endpoints, and was refused a request."""
    directory, port = tmp_path_factory.mktemp("readers"), free_port()
    config = Path(directory) / "kubeconfig"
    with in_thread(FakeApi()) as api, pod("a") as a, pod("b") as b:
        write_kubeconfig(config, api.url)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}}
        ports = [{"name": "main", "port": port}]
        web = service("web", type="ClusterIP", clusterIP="127.22.0.1", ports=ports)
        api.call(lambda server: server.apply(node, web, *endpoints("web", [a])))
        api.call(lambda server: server.answer(403, on="nodes"))
        with program(directory, source=["--kubeconfig", str(config)]) as running:
            (changed,) = endpoints("web", [b])
            changed["metadata"]["annotations"] = {
                "endpoints.kubernetes.io/last-change-trigger-time": f"{datetime.now(UTC):%FT%T.%fZ}"
            }
            api.call(lambda server: server.apply(changed))
            wait_for("the change", lambda: "b" in {visit("127.22.0.1", port) for _ in range(2)})
            for path in ("/healthz", "/livez"):
                wait_for(path, lambda: running.get(running.health, path)[0] == 200)  # noqa: B023
            yield running


@pytest.mark.parametrize("url", URLS, ids=str)
def test_urls(uproxy: Program, url: Url) -> None:
    port = uproxy.health if url.port == "health" else uproxy.metrics
    request = f"GET {url.path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(request.encode())
        with sock.makefile("rb") as answer:
            text = answer.read().decode().replace("\r\n", "\n")
    assert re.search(url.answer, text), text


@pytest.mark.parametrize("series", SERIES, ids=str)
def test_metrics(uproxy: Program, series: Series) -> None:
    value = "[0-9]" if series.name.endswith(MAY_BE_ZERO) else "[1-9.]"
    pattern = re.compile(rf"^{series.name}(\{{.*{series.labels}.*\}})? {value}", re.MULTILINE)

    def there() -> bool:
        return bool(pattern.search(uproxy.get(uproxy.metrics, "/metrics")[1]))

    wait_for(series.name, there)


@pytest.mark.parametrize("name", ABSENT)
def test_what_could_only_be_made_up(uproxy: Program, name: str) -> None:
    page = uproxy.get(uproxy.metrics, "/metrics")[1]
    assert "rest_client_requests_total" in page
    assert name not in page


def test_the_settings_in_effect(uproxy: Program) -> None:
    code, text = uproxy.get(uproxy.metrics, "/configz")
    found = json.loads(text)
    kube_proxy, own, origins = (
        found[each] for each in ("kubeproxy.config.k8s.io", "uproxy.dev", "origins")
    )
    assert (code, kube_proxy["hostnameOverride"], own["workers"]) == (200, "here", 2)
    assert kube_proxy["metricsBindAddress"] == f"127.0.0.1:{uproxy.metrics}"
    assert (origins["workers"], origins["maxFlows"]) == ("flag --workers", "default")
