"""What `uproxy status` and `uproxy explain` print about the addresses of load balancers."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.cli.views import frontend, status
from uproxy.cli.output.explain import explanation, verdict
from uproxy.cli.output.services import services_of
from uproxy.cli.output.status import overview
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import (
    AddressCounts,
    AddressStatus,
    LoadBalancerStatus,
    PoolStatus,
    ServiceAddresses,
)
from uproxy.core.report.load_balancer_format import load_balancer_view
from uproxy.core.report.status_format import FrontendView, StatusView

WEB, DNS, MAIL, OLD = (ObjectName("default", each) for each in ("web", "dns", "mail", "old"))
VIP, VIP6 = "192.0.2.10", "2001:db8::10"
POOL = PoolStatus(
    name="default",
    origin="flags",
    ranges=("192.0.2.10-192.0.2.19",),
    counts={
        "IPv4": AddressCounts(total=10, used=1, reserved=2),
        "IPv6": AddressCounts(total=2**60, used=1, drained=4),
    },
    auto_assign=False,
)
HERE = AddressStatus(
    address=VIP,
    services=(WEB, DNS),
    pool="default",
    node="node-1",
    here=True,
    interface="eth0",
    since=1_700_000_000.0,
    conflict="02:00:00:00:00:07",
)
THERE = AddressStatus(
    address=VIP6, services=(WEB,), pool="default", node="node-2", reason="it had it before"
)
ALL = LoadBalancerStatus(
    mode="pools",
    announce="l2",
    allocator="node-3_0123456789abcdef",
    trouble="the status of default/mail cannot be written",
    notes=("announcements cannot be sent: CAP_NET_RAW is missing",),
    pools=(POOL,),
    addresses=(HERE, THERE),
    services=(
        ServiceAddresses(service=WEB, addresses=(VIP, VIP6), pool="default"),
        ServiceAddresses(service=MAIL, reason="port 80 of 192.0.2.10 is that of default/web"),
        ServiceAddresses(service=OLD, foreign="203.0.113.9 is in no pool"),
    ),
)


def view(found: LoadBalancerStatus = ALL, *frontends: FrontendView, **parts: Any) -> StatusView:
    shown = load_balancer_view(found, lambda _: True)
    return status(frontends=list(frontends), load_balancer=shown, **parts)


def at(address: str, state: str = "serving", reason: str = "") -> FrontendView:
    return frontend(address=address, port=80, kind="LoadBalancerIP", state=state, reason=reason)


def lines(found: LoadBalancerStatus) -> list[str]:
    """Of the sections about addresses."""
    printed = list(overview(view(found)))
    return printed[printed.index("Load balancer:") : printed.index("Workers:") - 1]


def test_all_sections() -> None:
    assert lines(ALL) == [
        "Load balancer:",
        "  Services get addresses from the pools of --lb-pool; "
        "each is announced by one node (ARP, NDP)",
        "  node-3 handed them out last",
        "  the status of default/mail cannot be written",
        "  announcements cannot be sent: CAP_NET_RAW is missing",
        "",
        "Pools:",
        "  default  IPv4: 1 of 10 used, 7 free, 2 reserved; "
        "IPv6: 1 of millions used, millions free, 4 drained  "
        "from flags  only for Services that ask for it",
        "",
        "Addresses:",
        "  192.0.2.10    node-1 (this node) on eth0 since 2023-11-14 22:13:20Z  "
        "default/dns, default/web  02:00:00:00:00:07 answers for it as well",
        "  2001:db8::10  node-2                                                 "
        "default/web               it had it before",
        "",
        "Waiting for an address:",
        "  default/mail  port 80 of 192.0.2.10 is that of default/web",
        "",
        "Addresses from other controllers:",
        "  default/old  203.0.113.9 is in no pool",
    ]


def test_nothing_is_said_where_no_addresses_are_assigned() -> None:
    assert "Load balancer:" not in list(overview(status()))


def test_a_mode_without_announcing() -> None:
    found = LoadBalancerStatus(
        mode="localhost",
        announce="l2",
        allocating=True,
        addresses=(AddressStatus(address="127.0.0.1", services=(WEB,)),),
    )
    assert lines(found) == [
        "Load balancer:",
        "  Services get 127.0.0.1 and ::1",
        "  this node hands them out",
        "",
        "Addresses:",
        "  127.0.0.1  -  default/web",
    ]


def test_each_node_speaks_of_its_own_routes() -> None:
    found = LoadBalancerStatus(
        mode="pools",
        announce="routes",
        allocating=True,
        addresses=(
            AddressStatus(address=VIP, services=(WEB,), here=True),
            AddressStatus(address=VIP6, services=(WEB,), reason="no endpoint is ready here"),
        ),
    )
    assert lines(found)[4:] == [
        "Addresses:",
        "  192.0.2.10    exported by this node      default/web",
        "  2001:db8::10  not exported by this node  default/web  no endpoint is ready here",
    ]
    text = "\n".join(explanation(view(found, at(VIP)), "default/web"))
    assert "  Address  192.0.2.10; this node exports a route to it\n" in text
    assert "2001:db8::10; this node exports no route to it: no endpoint is ready here" in text


def test_a_thousand_addresses_are_cut_off() -> None:
    many = tuple(
        AddressStatus(address=f"192.0.{i // 256}.{i % 256}", services=(WEB,)) for i in range(1000)
    )
    found = lines(msgspec.structs.replace(ALL, addresses=many))
    assert any(line.endswith("and 980 more: -o json") for line in found)
    assert len(found) < 50


def test_whatever_time_the_server_says() -> None:
    odd = msgspec.structs.replace(HERE, since=1e300)
    found = lines(msgspec.structs.replace(ALL, addresses=(odd,)))
    assert any("node-1 (this node) on eth0  default" in line for line in found)


class TestExplain:
    def test_who_announces_and_that_pods_may_be_why_a_fail_over_is_long(self) -> None:
        found = "\n".join(explanation(view(ALL, at(VIP)), "default/web"))
        assert (
            "  Address    192.0.2.10 from pool default, shared with default/dns; node-1 (this node)"
            " has announced it on eth0 since 2023-11-14 22:13:20Z: 02:00:00:00:00:07 answers for it"
            " as well\n"
            "  Address    2001:db8::10 from pool default; node-2 announces it: it had it before\n"
        ) in found
        assert "  Fail-over  if a node dies, another one announces the address" in found
        assert "5 minutes" in found

    def test_a_service_that_waits(self) -> None:
        found = "\n".join(explanation(view(ALL, at("10.96.0.7")), "default/mail"))
        assert "  Addresses  none yet: port 80 of 192.0.2.10 is that of default/web" in found
        assert "Fail-over" not in found

    def test_a_status_of_another_controller(self) -> None:
        found = "\n".join(explanation(view(ALL, at("10.96.0.7")), "default/old"))
        expected = "  Addresses  another controller assigns them: 203.0.113.9 is in no pool"
        assert expected in found

    def test_a_service_of_which_only_the_load_balancer_knows(self) -> None:
        assert "default/mail" in services_of(view())
        assert "default/none" not in services_of(view())

    def test_what_another_node_announces_is_no_failure_of_this_one(self) -> None:
        frontends = [
            at(VIP),
            at(VIP6, "elsewhere", "node node-2 announces it"),
        ]
        found = view(ALL, *frontends)
        assert verdict(found, "default/web") == (
            "default/web is served on its only frontend."
            " Clients of 2001:db8::10 are served by node-2."
        )
        assert "What to do:" not in list(explanation(found, "default/web"))
        assert verdict(view(ALL, frontends[1]), "default/web") == (
            "On this node, default/web waits to take over."
            " Clients of 2001:db8::10 are served by node-2."
        )

    def test_a_headline_does_not_hide_that_an_address_is_missing(self) -> None:
        """It may be refused, for example as that of a gateway, or not be there yet."""
        found = view(ALL, at("10.96.0.7"), at(VIP))
        assert verdict(found, "default/web") == (
            "default/web is served on all of its 2 frontends, but not at 2001:db8::10."
        )
        assert verdict(view(ALL, at("10.96.0.7")), "default/mail") == (
            "default/mail is served on its only frontend, but it has no load-balancer address."
        )

    def test_a_node_need_not_serve_the_addresses_of_others(self) -> None:
        nodes = msgspec.structs.replace(ALL, mode="node")
        found = view(nodes, at(VIP))
        assert verdict(found, "default/web") == "default/web is served on its only frontend."

    def test_what_no_node_announces_is_something_to_do(self) -> None:
        nobody = msgspec.structs.replace(
            ALL, addresses=(AddressStatus(address=VIP, services=(WEB,), reason="no interface"),)
        )
        found = view(nobody, at(VIP, "elsewhere", "no interface"))
        printed = list(explanation(found, "default/web"))
        assert "  Address  192.0.2.10; no node announces it: no interface" in printed
        assert printed[-2:] == [
            "What to do:",
            "  * no node announces 192.0.2.10, so no client finds it;"
            " on each node that should: uproxy doctor",
        ]

    def test_an_address_without_endpoints_is_no_matter_for_the_doctor(self) -> None:
        nobody = msgspec.structs.replace(
            ALL, addresses=(AddressStatus(address=VIP, services=(WEB,), reason="no endpoint"),)
        )
        found = "\n".join(explanation(view(nobody, at(VIP, "paused")), "default/web"))
        assert "What to do:" in found
        assert "uproxy doctor" not in found
