from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping

import pytest

from uproxy.control.load_balancer.interface_addresses import AddressCalls, InterfaceAddresses
from uproxy.host.announced_addresses import Held

V4, V6 = "192.0.2.192", "2001:db8:1::f00"


class Kernel:
    """Interfaces, as far as addresses of ours are concerned."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.asked: list[tuple[str, set[str]]] = []
        self.refused: dict[str, int] = {}
        self.broken = 0

    @property
    def calls(self) -> AddressCalls:
        return AddressCalls(
            put=lambda addresses: self._do("put", addresses),
            renew=lambda addresses: self._do("renew", addresses),
            remove=lambda addresses: self._do("remove", addresses),
            held=self._held,
        )

    def _held(self) -> Mapping[str, Held]:
        self._fail()
        return {address: Held(name, 2) for address, name in self.there.items()}

    def _do(self, what: str, addresses: Mapping[str, str]) -> Mapping[str, OSError]:
        self.asked.append((what, set(addresses)))
        self._fail()
        refused = {a: self.refused[a] for a in addresses if a in self.refused}
        for address, name in addresses.items():
            if address in refused or what == "remove":
                self.there.pop(address, None)
            else:
                self.there[address] = name
        return {a: OSError(number, os.strerror(number)) for a, number in refused.items()}

    def _fail(self) -> None:
        if self.broken:
            raise OSError(self.broken, os.strerror(self.broken))


def test_addresses_are_put_renewed_moved_and_taken_off() -> None:
    kernel = Kernel()
    ours = InterfaceAddresses(kernel.calls)
    ours.become({V4: "eth0", V6: "eth0"}, 10.0)
    assert kernel.there == ours.held == {V4: "eth0", V6: "eth0"}
    ours.become({V4: "eth1", V6: "eth0"}, 11.0)
    assert kernel.there == ours.held == {V4: "eth1", V6: "eth0"}
    # It is off the old interface before it is on the new one.
    assert kernel.asked[1:] == [("remove", {V4}), ("put", {V4})]
    ours.become({}, 12.0)
    assert kernel.there == ours.held == {}


def test_lifetimes_are_renewed_in_time_and_not_all_the_time() -> None:
    kernel = Kernel()
    ours = InterfaceAddresses(kernel.calls)
    ours.become({V4: "eth0"}, 10.0)
    kernel.asked.clear()
    for tenths in range(100, 151):
        ours.renew(tenths / 10)
    renewals = sum(what == "renew" for what, _ in kernel.asked)
    assert 10 <= renewals <= 13  # In 5 s.


def test_an_interface_that_is_made_anew_or_renamed_gets_its_addresses_soon() -> None:
    kernel = Kernel()
    ours = InterfaceAddresses(kernel.calls)
    ours.become({V4: "eth0"}, 10.0)
    kernel.refused[V4] = errno.ENODEV
    ours.renew(10.5)
    assert ours.held == {}
    assert "No such device" in ours.failures[V4]
    kernel.refused.clear()
    ours.become({V4: "eth0"}, 11.6)
    assert ours.held == {V4: "eth0"}
    assert not ours.failures


def test_what_an_earlier_process_has_left_is_ours() -> None:
    kernel = Kernel()
    kernel.there = {V4: "eth0", V6: "eth0"}
    ours = InterfaceAddresses(kernel.calls)
    ours.take_over()
    ours.become({V4: "eth0"}, 10.0)
    assert kernel.there == ours.held == {V4: "eth0"}
    assert kernel.asked == [("remove", {V6})]


def test_an_address_that_the_interface_has_already_is_tried_again_a_minute_later() -> None:
    kernel = Kernel()
    kernel.refused = {V4: errno.EEXIST}
    ours = InterfaceAddresses(kernel.calls)
    ours.become({V4: "eth0", V6: "eth0"}, 10.0)
    assert ours.held == {V6: "eth0"}
    assert ours.failures == {V4: "cannot put it on eth0: File exists"}
    ours.become({V4: "eth0", V6: "eth0"}, 60.0)
    assert kernel.asked == [("put", {V4, V6})]
    kernel.refused = {}
    ours.become({V4: "eth0", V6: "eth0"}, 70.0)
    assert ours.held == {V4: "eth0", V6: "eth0"}
    assert ours.failures == {}


def test_an_address_whose_interface_vanishes_is_lost() -> None:
    kernel = Kernel()
    ours = InterfaceAddresses(kernel.calls)
    ours.become({V4: "eth0", V6: "eth0"}, 10.0)
    kernel.refused = {V4: errno.ENODEV}
    ours.renew(10.5)
    assert ours.held == {V6: "eth0"}
    assert list(ours.failures) == [V4]


def test_if_netlink_fails_altogether_nothing_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel()
    ours = InterfaceAddresses(kernel.calls)
    kernel.broken = errno.EMFILE
    with caplog.at_level(logging.WARNING):
        ours.take_over()
        ours.become({V4: "eth0"}, 10.0)
    assert ours.held == {}
    assert "Too many open files" in ours.failures[V4]
    assert len(caplog.records) == 2
    kernel.broken = 0
    ours.become({V4: "eth0"}, 11.0)
    assert kernel.there == ours.held == {V4: "eth0"}


def test_a_renewal_that_fails_altogether_is_tried_again_and_loses_nothing() -> None:
    kernel = Kernel()
    ours = InterfaceAddresses(kernel.calls)
    ours.become({V4: "eth0"}, 10.0)
    kernel.broken = errno.EMFILE
    ours.renew(10.5)
    assert ours.held == {V4: "eth0"}
    kernel.broken = 0
    kernel.asked.clear()
    ours.renew(10.6)
    assert kernel.asked == [("renew", {V4})]
    assert ours.failures == {}
