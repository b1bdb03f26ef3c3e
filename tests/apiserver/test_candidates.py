"""The order in which addresses of the API server are tried, and the names that they must prove."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import (
    IN_CLUSTER_NAME,
    LEARNED,
    Candidate,
    Candidates,
    candidate_at,
)

POD = Access(origin="service account", in_cluster=True, server="https://10.96.0.1:443")
OUTSIDE = Access(origin="kubeconfig k", server="https://api.example:6443")


def at(address: str, access: Access = POD) -> Candidate:
    return candidate_at(access, address, "a test")


def order(candidates: Candidates) -> list[str]:
    return [each.address for each in candidates.in_turn()]


@pytest.mark.parametrize(
    ("access", "address", "name"),
    [
        pytest.param(POD, "192.0.2.1:6443", IN_CLUSTER_NAME, id="IP address in a Pod"),
        pytest.param(POD, "[2001:db8::1]:6443", IN_CLUSTER_NAME, id="IPv6 address in a Pod"),
        pytest.param(POD, "api.example:6443", "", id="name in a Pod"),
        pytest.param(OUTSIDE, "192.0.2.1:6443", "api.example", id="host of the kubeconfig"),
        pytest.param(OUTSIDE, "other.example:6443", "api.example", id="not the given name"),
        pytest.param(
            replace(OUTSIDE, tls_server_name="tls.example"),
            "192.0.2.1:6443",
            "tls.example",
            id="tls-server-name of the kubeconfig",
        ),
    ],
)
def test_the_name_in_the_certificate(access: Access, address: str, name: str) -> None:
    found = candidate_at(access, address, "a test")
    assert (found.server, found.tls_server_name) == (f"https://{address}", name)


def test_a_path_of_the_server_stays() -> None:
    access = replace(OUTSIDE, server="https://api.example/k8s/clusters/c-1")
    assert at("192.0.2.1:443", access).server == "https://192.0.2.1:443/k8s/clusters/c-1"


def test_the_order_of_preference() -> None:
    candidates = Candidates(POD, [at("192.0.2.1:6443"), at("192.0.2.2:6443")])
    candidates.learn(["192.0.2.3:6443", "192.0.2.1:6443"])
    assert order(candidates) == [
        "192.0.2.1:6443",
        "192.0.2.2:6443",
        "192.0.2.3:6443",
        "10.96.0.1:443",
    ]
    origins = [each.origin for each in candidates.addresses]
    assert origins == ["a test", "a test", LEARNED, "the environment of this Pod"]


def test_the_one_in_use_comes_first_and_those_that_failed_last() -> None:
    candidates = Candidates(POD, [at("192.0.2.1:6443"), at("192.0.2.2:6443")])
    candidates.failed(at("192.0.2.1:6443"), "connection refused")
    candidates.answered(at("10.96.0.1:443"))
    candidates.answered(Candidate("https://10.96.0.1:443"))
    assert order(candidates) == ["10.96.0.1:443", "192.0.2.2:6443", "192.0.2.1:6443"]
    candidates.failed(Candidate("https://10.96.0.1:443"), "no answer in time")
    assert candidates.current is None
    assert order(candidates) == ["192.0.2.2:6443", "192.0.2.1:6443", "10.96.0.1:443"]
    candidates.failed(at("192.0.2.2:6443"), "connection refused")
    assert order(candidates) == ["192.0.2.1:6443", "192.0.2.2:6443", "10.96.0.1:443"]


def test_nothing_is_lost_when_control_plane_nodes_are_replaced_one_by_one() -> None:
    candidates = Candidates(POD)
    candidates.learn(["192.0.2.1:6443", "192.0.2.2:6443"])
    candidates.answered(at("192.0.2.1:6443"))
    assert candidates.learn(["192.0.2.2:6443", "192.0.2.3:6443"])
    assert candidates.current == at("192.0.2.1:6443"), "it is used until it fails"
    assert [each.server for each in candidates.addresses if each.former] == [
        "https://192.0.2.1:6443"
    ]
    candidates.failed(at("192.0.2.1:6443"), "connection refused")
    assert set(order(candidates)[:2]) == {"192.0.2.2:6443", "192.0.2.3:6443"}
    assert order(candidates)[2:] == ["10.96.0.1:443", "192.0.2.1:6443"]
    candidates.learn(["192.0.2.1:6443"])
    assert not candidates.addresses[0].former
    assert len(order(candidates)) == 4


def test_former_addresses_are_few_and_the_one_in_use_is_never_forgotten() -> None:
    candidates = Candidates(POD)
    candidates.learn(["192.0.2.1:6443"])
    candidates.answered(at("192.0.2.1:6443"))
    for number in range(2, 250):
        candidates.learn([f"192.0.2.{number}:6443"])
        candidates.failed(at(f"192.0.2.{number}:6443"), "no answer in time")
    assert len(candidates.all) == 1 + 1 + 8 + 1
    assert len(candidates.failures) == 9
    assert order(candidates)[0] == "192.0.2.1:6443"
    candidates.learn([f"192.0.2.{number}:6443" for number in range(1, 250)])
    assert len(candidates.all) <= 16 + 1 + 8 + 1


def test_no_news() -> None:
    candidates = Candidates(POD)
    assert not candidates.learn([])
    assert candidates.learn(["192.0.2.1:6443"])
    assert not candidates.learn(["192.0.2.1:6443"])
    assert not candidates.learn([]), "a cluster without an API server cannot say so"
    assert order(candidates) == ["192.0.2.1:6443", "10.96.0.1:443"]


@pytest.mark.parametrize(
    "access",
    [
        pytest.param(replace(OUTSIDE, verify=False), id="certificate not verified"),
        pytest.param(replace(OUTSIDE, server="http://api.example"), id="no TLS"),
    ],
)
def test_credentials_do_not_go_where_an_endpoint_slice_says_without_a_proof(access: Access) -> None:
    candidates = Candidates(access, [at("192.0.2.1:6443", access)])
    assert not candidates.learn(["192.0.2.66:6443"])
    assert "192.0.2.66:6443" not in order(candidates)


def test_the_cluster_ip_is_left_when_there_is_something_better() -> None:
    candidates = Candidates(POD)
    base = candidates.all[0]
    candidates.answered(base)
    candidates.learn(["192.0.2.1:6443"])
    assert order(candidates) == ["192.0.2.1:6443", "10.96.0.1:443"]
    candidates.failed(at("192.0.2.1:6443"), "no answer within 1 s")
    candidates.answered(base)
    assert not candidates.learn(["192.0.2.1:6443"])
    assert candidates.current == base, "what does not answer is not tried again without need"


def test_the_server_of_a_kubeconfig_is_not_left_while_it_answers() -> None:
    candidates = Candidates(OUTSIDE, [at("192.0.2.1:6443", OUTSIDE)])
    base = candidates.all[-1]
    candidates.answered(base)
    candidates.learn(["192.0.2.2:6443"])
    assert candidates.current == base


def test_nodes_do_not_all_choose_the_same_api_server() -> None:
    servers = [f"192.0.2.{number}:6443" for number in (1, 2, 3)]
    chosen = set()
    for number in range(30):
        candidates = Candidates(POD, spread=f"node-{number}")
        candidates.learn(servers)
        again = Candidates(POD, spread=f"node-{number}")
        again.learn(servers[::-1])
        assert order(again) == order(candidates)
        chosen.add(order(candidates)[0])
    assert chosen == set(servers)


def test_what_the_cluster_repeats_is_not_looked_at_again() -> None:
    """It is repeated after each sync. With a thousand addresses each look took 5 ms, and nothing
    limits how many endpoints the Service kubernetes has."""

    class Said(tuple[str, ...]):
        looks = 0

        def __iter__(self) -> Iterator[str]:
            self.looks += 1
            return super().__iter__()

    candidates = Candidates(POD)
    said = Said(f"10.0.{number // 250}.{number % 250}:6443" for number in range(1000))
    assert candidates.learn(said)
    before = said.looks
    assert not candidates.learn(said)
    assert said.looks == before
    assert candidates.learn(said[:1]), "but what is new counts"
