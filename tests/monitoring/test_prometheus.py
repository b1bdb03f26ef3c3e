"""A real Prometheus scrapes a real uproxy under traffic, and evaluates rules and queries."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.pods import Pod, ask, pod, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for, write
from tests.http.metrics_document import exported
from tests.monitoring.files import alerts, known, plain_rules, queries
from tests.monitoring.prometheus import Prometheus, needs_prometheus, prometheus
from tests.ports import free_port

pytestmark = needs_prometheus

HERE = "127.0.0.1"


class World(NamedTuple):
    uproxy: Program
    prometheus: Prometheus
    shop: Pod
    """The only pod of the Service shop, which tests may end."""
    ports: dict[str, int]
    """Node ports of the Services."""

    def use(self) -> None:
        """One flow to each Service; those to shop may fail."""
        assert visit(HERE, self.ports["web"]) == "web"
        assert ask(HERE, self.ports["dns"]) == "dns hello"
        with contextlib.suppress(ConnectionError):
            visit(HERE, self.ports["shop"])


def immediate(rules: str) -> str:
    """The rules, of which each fires at once."""
    return re.sub(r"^ *for: .*\n", "", rules, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("monitoring")
    manifests, data = directory / "manifests", directory / "prometheus"
    manifests.mkdir()
    data.mkdir()
    ports = {name: free_port() for name in ("web", "dns", "shop")}
    with pod("web") as web, pod("dns") as dns, pod("shop") as shop:
        for name, protocol, target in (
            ("web", "TCP", web),
            ("dns", "UDP", dns),
            ("shop", "TCP", shop),
        ):
            port = {"name": "main", "port": 80, "nodePort": ports[name], "protocol": protocol}
            made = service(name, ports=[port], type="LoadBalancer")
            write(manifests, f"{name}.yaml", made, *endpoints(name, [target], protocol=protocol))
        options = ["--metrics-per-backend", "100", "--lb-pool", "127.0.53.0/28"]
        options += ["--flow-log", str(directory / "flows.log")]
        with (
            program(manifests, *options) as uproxy,
            prometheus(data, uproxy.metrics, immediate(plain_rules())) as running,
        ):
            yield World(uproxy, running, shop, ports)


def test_what_is_exported_is_documented(world: World) -> None:
    world.use()
    _, page = world.uproxy.get(world.uproxy.metrics, "/metrics")
    found = exported(page)
    assert set(found) == set(known())
    for name, each in found.items():
        assert set(each.labels) <= known()[name], name


def test_it_is_scraped_and_no_rule_has_an_error(world: World) -> None:
    def evaluated() -> bool:
        rules = world.prometheus.rules()
        return len(rules) == len(alerts()) and all(each["health"] == "ok" for each in rules)

    wait_for("all rules are evaluated", evaluated)
    wait_for("scraped", lambda: world.prometheus.targets() == [("up", "")])
    assert [each["lastError"] for each in world.prometheus.rules() if each.get("lastError")] == []
    assert world.prometheus.query("uproxy_ready")[0]["value"][1] == "1"


def test_every_query_of_the_dashboard_is_understood(world: World) -> None:
    """Most of them have data, too; the others are about what has not happened."""

    def with_data() -> set[str]:
        return {each.panel for each in queries() if world.prometheus.query(each.expression)}

    def has_rates() -> bool:
        world.use()
        return bool(world.prometheus.query("sum(rate(uproxy_flows_total[1m])) > 0"))

    wait_for("two scrapes under traffic", has_rates)
    empty = {each.panel for each in queries()} - with_data()
    assert empty <= {
        "Alerts that fire",
        "Attempts with another backend, top 10",
        "Drops by Service, top 10",
        "Drops by reason",
        "Failed attempts by pod and errno, top 10",
        "Failed attempts to reach a backend, top 10",
        "Pods that are set aside, by workers",
        "Problems by kind",
        "Requests to the API server",
    }


def test_alerts_fire_when_a_backend_fails_and_name_it(world: World) -> None:
    world.shop.close()

    def fires() -> bool:
        world.use()
        return {"UproxyClientsFail", "UproxyPodFails"} <= set(world.prometheus.firing())

    wait_for("the alerts fire", fires)
    firing = world.prometheus.firing()
    assert {each["service"] for each in firing["UproxyClientsFail"]} == {"shop"}
    failing = firing["UproxyPodFails"]
    assert {each["backend"] for each in failing} == {f"{world.shop.address}:{world.shop.port}"}
    assert {each["errno"] for each in failing} == {"ECONNREFUSED"}
    # One pod that fails is nothing that is wrong with this node.
    assert not {"UproxyDown", "UproxyMissing", "UproxyNotReady", "UproxySyncsHang"} & set(firing)
