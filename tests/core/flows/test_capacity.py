from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.flows.capacity import Capacity

PLENTY = 1_000_000


def capacity(max_flows: int, descriptors: int = PLENTY, serves: str = "TCP UDP") -> Capacity:
    made = Capacity(max_flows, descriptors)
    protocols: tuple[str, ...] = ("TCP", "UDP")
    for protocol in protocols:
        if protocol in serves:
            made.opened(protocol)
    return made


@pytest.mark.parametrize(
    ("max_flows", "descriptors", "serves", "tcp", "udp"),
    [
        pytest.param(1000, PLENTY, "TCP UDP", 750, 750, id="a quarter is owed to the other"),
        pytest.param(1000, PLENTY, "TCP", 1000, 750, id="TCP alone has all"),
        pytest.param(1000, PLENTY, "UDP", 750, 1000, id="UDP alone has all"),
        pytest.param(2, PLENTY, "TCP UDP", 2, 2, id="of two flows there is no quarter"),
        # 256 in reserve, 48 pipes, 48 idle, two listeners: 622 are left, and 77 flows owed to each.
        pytest.param(65536, 1024, "TCP UDP", 272, 468, id="few descriptors"),
        # 16 in reserve, 3 pipes, 3 idle, two listeners: 37 are left, and 4 flows owed to each.
        pytest.param(65536, 64, "TCP UDP", 16, 29, id="very few descriptors"),
        pytest.param(65536, 4, "TCP UDP", 1, 2, id="next to none: one TCP flow"),
    ],
)
def test_room(max_flows: int, descriptors: int, serves: str, tcp: int, udp: int) -> None:
    made = capacity(max_flows, descriptors, serves)
    assert (made.tcp_room(0.0), made.udp_room(0.0)) == (tcp, udp)


@pytest.mark.parametrize(
    ("descriptors", "flows"),
    [
        pytest.param(PLENTY, 65536, id="--max-flows"),
        pytest.param(65536, (65536 - 256 - 512 - 256 - 2) // 2, id="RLIMIT_NOFILE"),
        pytest.param(1024, (768 - 96 - 48 - 2) // 2, id="the usual soft limit"),
        pytest.param(2, 1, id="never none"),
    ],
)
def test_flows_of_a_worker_are_limited_by_its_descriptors(descriptors: int, flows: int) -> None:
    assert capacity(65536, descriptors).flow_limit == flows


def test_listeners_take_descriptors_from_flows() -> None:
    made = capacity(65536, 1024)
    before = made.flow_limit
    for _ in range(100):
        made.opened("UDP")
    assert made.flow_limit == before - 50
    for _ in range(100):
        made.closed("UDP")
    assert made.flow_limit == before


@given(
    max_flows=st.integers(1, 300),
    descriptors=st.integers(2, 1000),
    arrivals=st.lists(st.sampled_from(["TCP", "UDP", "-TCP", "-UDP"]), max_size=300),
    flood=st.sampled_from(["TCP", "UDP"]),
)
def test_no_protocol_takes_what_is_owed_to_the_other(
    max_flows: int, descriptors: int, arrivals: list[str], flood: str
) -> None:
    made = capacity(max_flows, descriptors)
    for step in [*arrivals, *[flood] * 1000]:
        if step == "TCP" and made.tcp_room(0.0) > 0:
            made.tcp += 1
        elif step == "UDP" and made.udp_room(0.0) > 0:
            made.udp += 1
        elif step == "-TCP" and made.tcp:
            made.tcp -= 1
        elif step == "-UDP" and made.udp:
            made.udp -= 1
        assert made.tcp + made.udp <= max_flows
        used = 2 * made.tcp + made.udp + 2 * made.max_pipes + 2
        assert used <= max(descriptors, 4)
        if made.tcp + made.udp <= made.check_above:
            assert made.tcp_room(0.0) >= 64
            assert made.udp_room(0.0) >= 64
    owed = made.flow_limit // 4
    assert made.tcp + max(0, made.tcp_room(0.0)) >= owed
    assert made.udp + max(0, made.udp_room(0.0)) >= owed


class TestRunningOutOfPorts:
    """The kernel has no port for another UDP socket."""

    def test_udp_leaves_an_eighth_of_what_it_has_to_others(self) -> None:
        made = capacity(1000)
        made.tcp, made.udp = 10, 200
        made.ports_ran_out(5.0)
        assert made.is_short_of_ports
        assert made.udp_room(5.0) == -25
        made.udp -= 25
        assert made.udp_room(5.0) == 0
        assert made.tcp_room(5.0) == 740

    def test_it_passes(self) -> None:
        made = capacity(1000)
        made.udp = 200
        made.ports_ran_out(5.0)
        assert made.udp_room(14.9) < 0
        assert made.udp_room(15.0) == 550
        assert not made.is_short_of_ports

    def test_few_flows_are_not_the_cause(self) -> None:
        made = capacity(1000)
        made.udp = 7
        made.ports_ran_out(5.0)
        assert not made.is_short_of_ports


class TestRunningOut:
    """Descriptors are refused although there should be some."""

    def test_what_there_is_now_is_the_most_that_there_can_be(self) -> None:
        made = capacity(1000)
        made.tcp, made.udp = 10, 200
        made.ran_out(5.0)
        assert made.is_short
        # Of 220 descriptors, 27 flows are owed to TCP: UDP has 34 too many.
        assert (made.tcp_room(5.0), made.udp_room(5.0)) == (0, -34)
        made.udp -= 34
        assert (made.tcp_room(5.0), made.udp_room(5.0)) == (17, 0)

    def test_tcp_takes_no_more_than_its_share_either(self) -> None:
        made = capacity(1000)
        made.tcp, made.udp = 100, 0
        made.ran_out(5.0)
        made.tcp -= 10
        assert made.tcp_room(5.0) == -3
        assert made.udp_room(5.0) == 20

    def test_it_is_not_believed_for_long(self) -> None:
        made = capacity(1000)
        made.tcp = 100
        made.ran_out(5.0)
        assert made.tcp_room(5.4) <= 0
        assert made.tcp_room(5.5) == 650
        assert not made.is_short

    def test_it_is_not_what_is_reported(self) -> None:
        made = capacity(1000)
        made.tcp = 100
        made.ran_out(5.0)
        assert (made.flow_limit, made.reduced_flow_limit) == (1000, 0)
        made = capacity(1000, 1024)
        before, made.udp = made.reduced_flow_limit, 10
        made.ran_out(5.0)
        assert made.is_short
        assert before == made.reduced_flow_limit == 311

    def test_few_flows_are_not_to_blame(self) -> None:
        made = capacity(1000)
        made.tcp, made.udp = 3, 1
        made.ran_out(5.0)
        assert not made.is_short
        assert (made.tcp_room(5.0), made.udp_room(5.0)) == (747, 749)


def test_another_number_of_flows_may_be_allowed() -> None:
    made = capacity(10, serves="TCP")
    made.tcp = 8
    assert made.tcp_room(0.0) == 2
    made.allow(100)
    assert (made.tcp_room(0.0), made.flow_limit) == (92, 100)
    made.allow(5)
    assert made.tcp_room(0.0) == -3
