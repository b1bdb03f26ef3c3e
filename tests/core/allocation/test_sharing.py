"""Who may share an address, and what a Service is told that may not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import port
from tests.core.allocation.world import World, balancer, changed, pool, requesting, sharing
from uproxy.core.cluster.objects import Service

ADDRESS = "192.0.2.1"
HTTP, HTTPS, DNS = port(80), port(443), port(53, protocol="UDP")


def local(name: str, *ports: Any, app: str = "x", **fields: Any) -> Service:
    selector = {"app": app, "tier": "web"}
    return balancer(name, *ports, external_traffic_policy="Local", selector=selector, **fields)


KEY = sharing("k")
LONG = sharing("k" * 1000)
OTHERS = 'can\'t change sharing key for "default/new", address 192.0.2.1 also in use by default/old'


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            balancer("old", HTTP, annotations=KEY),
            balancer("new", HTTPS, annotations=KEY),
            "",
            id="other-port",
        ),
        pytest.param(
            balancer("old", port(53), annotations=KEY),
            balancer("new", DNS, annotations=KEY),
            "",
            id="mixed-protocol-services",
        ),
        pytest.param(
            balancer("old", HTTP, annotations={"metallb.universe.tf/allow-shared-ip": "k"}),
            balancer("new", HTTPS, annotations={"metallb.io/allow-shared-ip": "k"}),
            "",
            id="other-prefix",
        ),
        pytest.param(
            balancer("a/old", HTTP, annotations=KEY),
            balancer("b/new", HTTPS, annotations=KEY),
            "",
            id="other-namespace",
        ),
        pytest.param(
            local("old", HTTP, annotations=KEY),
            local("new", HTTPS, annotations=KEY),
            "",
            id="policy-local-with-the-same-selector",
        ),
        pytest.param(
            balancer("old", HTTP),
            balancer("new", HTTPS, annotations=KEY),
            f"{OTHERS}: existing service does not allow sharing",
            id="old-has-no-key",
        ),
        pytest.param(
            balancer("old", HTTP, annotations=sharing("")),
            balancer("new", HTTPS, annotations=sharing("")),
            "192.0.2.1 is in use by default/old",
            id="empty-keys",
        ),
        pytest.param(
            balancer("old", HTTP, annotations=KEY),
            balancer("new", HTTPS),
            "192.0.2.1 is in use by default/old",
            id="new-has-no-key",
        ),
        pytest.param(
            balancer("old", HTTP, annotations=KEY),
            balancer("new", HTTPS, annotations=sharing("\x1b[2J")),
            f'{OTHERS}: sharing key "\\x1b[2J" does not match existing sharing key "k"',
            id="other-key",
        ),
        pytest.param(
            balancer("old", HTTP, HTTPS, annotations=KEY),
            balancer("new", port(81), HTTPS, annotations=KEY),
            'port TCP/443 is already in use on "192.0.2.1" by default/old',
            id="same-port",
        ),
        pytest.param(
            balancer("old", HTTP, annotations=KEY),
            local("new", HTTPS, annotations=KEY),
            f"{OTHERS}: externalTrafficPolicy Local cannot share with Cluster",
            id="other-policy",
        ),
        pytest.param(
            local("old", HTTP, annotations=KEY),
            local("new", HTTPS, annotations=KEY, app="y"),
            f'{OTHERS}: with externalTrafficPolicy Local, selector "app=y,tier=web" does not match '
            '"app=x,tier=web"',
            id="other-selector",
        ),
    ],
)
def test_sharing(old: Service, new: Service, reason: str) -> None:
    world = World(pool("a", ADDRESS))
    world.put(old)
    world.put(new)
    name = f"{new.metadata.namespace}/new"
    assert world.ips(name) == (() if reason else (ADDRESS,))
    if reason:
        assert world.reason(name) == f'False no available IPs in pool "a" for IPv4: {reason}'


def test_a_request_says_who_has_the_address() -> None:
    world = World(pool("a", "192.0.2.0/24"))
    world.put(balancer("old", annotations=requesting(ADDRESS)))
    world.put(balancer("new", annotations=requesting(ADDRESS)))
    reason = f"{OTHERS}: existing service does not allow sharing"
    assert world.reason("new") == f"False {reason}"
    assert world.told("new") == [
        f'Warning AllocationFailed: Failed to allocate IP for "default/new": {reason}'
    ]


def test_without_a_request_the_first_address_that_can_be_shared_is_taken() -> None:
    world = World(pool("a", "192.0.2.0/24"))
    world.put(balancer("alone"))
    world.put(balancer("one", HTTP, annotations=KEY))
    world.put(balancer("two", HTTP, annotations=KEY))
    world.put(balancer("three", HTTPS, annotations=KEY))
    world.put(balancer("four", HTTPS, annotations=KEY))
    world.put(balancer("five", HTTPS, annotations=KEY))
    assert {name: ips[0][-1] for name, ips in world.held().items()} == {
        "alone": "0",
        "one": "1",
        "two": "2",
        "three": "1",
        "four": "2",
        "five": "3",
    }
    # A free address that comes before those that can be shared is taken first.
    world.delete("alone")
    world.put(balancer("six", port(81), annotations=KEY))
    assert world.ips("six") == ("192.0.2.0",)


def test_a_larger_pool_says_what_forbids_to_share() -> None:
    world = World(pool("a", "192.0.2.0/29"))
    world.put(*(balancer(f"s{number}", annotations=KEY) for number in range(8)))
    world.put(balancer("new", annotations=KEY))
    assert world.reason("new") == (
        'False no available IPs in pool "a" for IPv4: '
        'port TCP/80 is already in use on "192.0.2.0" by default/s0'
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"annotations": sharing("other")}, id="key"),
        pytest.param({"external_traffic_policy": "Local"}, id="policy"),
        pytest.param({"selector": {"app": "y"}}, id="selector"),
        pytest.param({"ports": (port(81),)}, id="ports"),
    ],
)
def test_the_sole_user_may_change_how_it_shares(fields: dict[str, Any]) -> None:
    world = World(pool("a", "192.0.2.0/24"))
    world.put(balancer("web", annotations=KEY, selector={"app": "x"}))
    before = dict(world["web"].metadata.annotations or {})
    if "annotations" in fields:
        fields = {"annotations": {**before, **fields["annotations"]}}
    world.change("web", **fields)
    assert world.ips("web") == ("192.0.2.0",)
    assert world.events == []


def test_a_service_gets_in_when_the_sole_user_changes_its_key() -> None:
    world = World(pool("a", ADDRESS))
    world.put(balancer("old", HTTP))
    world.put(balancer("new", HTTPS, annotations=KEY))
    assert world.held() == {"old": (ADDRESS,)}
    world.change("old", annotations={**(world["old"].metadata.annotations or {}), **KEY})
    assert world.held() == {"old": (ADDRESS,), "new": (ADDRESS,)}


def test_who_changes_to_a_port_of_another_loses_the_address() -> None:
    world = World(pool("a", "192.0.2.0/24"))
    world.put(balancer("a", HTTP, annotations=KEY), balancer("b", HTTPS, annotations=KEY))
    assert world.ips("a") == world.ips("b") == ("192.0.2.0",)
    world.change("a", ports=(HTTPS,))
    assert (world.ips("a"), world.ips("b")) == (("192.0.2.1",), ("192.0.2.0",))
    assert world.told("a")[0].endswith('port TCP/443 is already in use on "192.0.2.0" by default/b')


def test_an_address_is_free_when_the_last_of_many_lets_it_go() -> None:
    world = World(pool("a", ADDRESS))
    ports = range(1, 6)
    world.put(*(balancer(f"s{each}", port(each), annotations=KEY) for each in ports))
    world.put(balancer("waits", HTTP, annotations=sharing("else")))
    assert world.reason("waits").endswith(
        "address 192.0.2.1 also in use by default/s1,default/s2,default/s3 and 2 more: sharing key "
        '"else" does not match existing sharing key "k"'
    )
    for each in ports:
        assert world.ips("waits") == ()
        world.delete(f"s{each}")
    assert world.ips("waits") == (ADDRESS,)


def test_both_change_at_once() -> None:
    """MetalLB would look at one after the other, so that the first would lose its address."""
    world = World(pool("a", ADDRESS))
    one = local("one", HTTP, annotations=KEY, app="x")
    two = local("two", HTTPS, annotations=KEY, app="x")
    world.put(one, two)
    both = [changed(world[name], selector={"app": "y"}) for name in ("one", "two")]
    world.put(*both)
    assert world.held() == {"one": (ADDRESS,), "two": (ADDRESS,)}


def test_an_absurd_key_is_cut_in_reasons() -> None:
    world = World(pool("a", ADDRESS))
    world.put(balancer("old", HTTP, annotations=KEY))
    world.put(balancer("new", HTTPS, annotations=LONG))
    assert len(world.reason("new")) < 500
