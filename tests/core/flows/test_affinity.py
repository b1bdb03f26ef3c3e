from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from uproxy.core.flows.affinity import REMEMBERED, Affinity, digest, fair_share, rendezvous
from uproxy.core.route import Backend

A, B, C, D = (Backend(f"10.0.0.{number}", 80) for number in range(1, 5))
CLIENTS = [f"192.0.2.{number}" for number in range(1, 255)]


def winner(client: str, *backends: Backend) -> Backend | None:
    return rendezvous(digest(client), [(digest(str(each)), each) for each in backends])


class TestRendezvous:
    def test_no_candidate_wins_among_none(self) -> None:
        assert winner("192.0.2.1") is None

    def test_order_does_not_matter(self) -> None:
        for client in CLIENTS:
            assert winner(client, A, B, C) == winner(client, C, A, B)

    def test_only_the_clients_of_one_that_leaves_move(self) -> None:
        for client in CLIENTS:
            before = winner(client, A, B, C, D)
            if before != D:
                assert winner(client, A, B, C) == before

    def test_a_newcomer_takes_clients_for_itself_only(self) -> None:
        for client in CLIENTS:
            assert winner(client, A, B, C, D) in (D, winner(client, A, B, C))

    @pytest.mark.parametrize("count", [2, 3, 4, 7, 20])
    def test_everybody_gets_a_fair_share(self, count: int) -> None:
        backends = [Backend(f"10.0.{number}.1", 80) for number in range(count)]
        clients = [f"10.{n >> 8}.{n & 255}.1" for n in range(400 * count)]
        shares = Counter(winner(client, *backends) for client in clients)
        # 400 each, give or take 20 (one sigma): a score that is linear in both digests, as CRCs
        # are, would be 200 off with three backends.
        assert all(abs(shares[each] - 400) < 100 for each in backends)

    def test_another_process_with_another_hash_seed_agrees(self) -> None:
        code = (
            "from uproxy.core.flows.affinity import digest, rendezvous\n"
            "from uproxy.core.route import Backend\n"
            "all = [Backend(f'10.0.0.{n}', 80) for n in range(1, 5)]\n"
            "all = [(digest(str(each)), each) for each in all]\n"
            "for n in range(1, 255): print(rendezvous(digest(f'192.0.2.{n}'), all).address)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        here = [winner(client, A, B, C, D) for client in CLIENTS]
        assert run.stdout.split() == [each.address for each in here if each]


class TestPins:
    @pytest.mark.parametrize(
        ("age", "timeout", "expected"),
        [
            pytest.param(0.0, 10, A, id="at once"),
            pytest.param(9.9, 10, A, id="just in time"),
            pytest.param(10.0, 10, None, id="over"),
            pytest.param(9.9, 5, None, id="timeout shortened meanwhile"),
            pytest.param(19.0, 20, A, id="timeout prolonged meanwhile"),
        ],
    )
    def test_a_pin_lasts_for_the_timeout_that_holds_now(
        self, age: float, timeout: float, expected: Backend | None
    ) -> None:
        affinity = Affinity()
        affinity.pin("192.0.2.1", A, 100.0, 10)
        assert affinity.find("192.0.2.1", 100.0 + age, timeout) == expected

    def test_using_a_pin_prolongs_it(self) -> None:
        affinity = Affinity()
        for now in range(0, 100, 9):
            affinity.pin("192.0.2.1", A, float(now), 10)
        assert affinity.find("192.0.2.1", 105.0, 10) == A

    def test_a_client_without_a_pin(self) -> None:
        assert Affinity().find("192.0.2.1", 0.0, 10) is None

    def test_a_pin_is_replaced(self) -> None:
        affinity = Affinity()
        affinity.pin("192.0.2.1", A, 0.0, 10)
        affinity.pin("192.0.2.1", B, 1.0, 10)
        assert affinity.find("192.0.2.1", 2.0, 10) == B
        assert len(affinity) == 1

    def test_pins_to_a_backend_that_left_are_void_even_when_it_returns(self) -> None:
        affinity = Affinity()
        affinity.pin("192.0.2.1", A, 0.0, 10)
        affinity.pin("192.0.2.2", B, 0.0, 10)
        affinity.retain({B, C})
        affinity.retain({A, B, C})
        affinity.pin("192.0.2.3", A, 0.0, 10)
        assert affinity.find("192.0.2.1", 1.0, 10) is None
        assert affinity.find("192.0.2.2", 1.0, 10) == B
        assert affinity.find("192.0.2.3", 1.0, 10) == A

    def test_the_longest_unused_is_forgotten_first(self) -> None:
        affinity = Affinity(capacity=2)
        affinity.pin("192.0.2.1", A, 0.0, 100)
        affinity.pin("192.0.2.2", B, 1.0, 100)
        affinity.pin("192.0.2.1", A, 2.0, 100)
        affinity.pin("192.0.2.3", C, 3.0, 100)
        assert affinity.find("192.0.2.1", 4.0, 100) == A
        assert affinity.find("192.0.2.2", 4.0, 100) is None
        assert affinity.find("192.0.2.3", 4.0, 100) == C

    def test_expired_pins_are_remembered_for_a_day(self) -> None:
        affinity = Affinity()
        for number, client in enumerate(CLIENTS):
            affinity.pin(client, A, number * (REMEMBERED + 10) / 10, 10)
        assert len(affinity) == 10

    def test_expired_pins_have_no_room_of_their_own(self) -> None:
        affinity = Affinity(capacity=100)
        for number, client in enumerate(CLIENTS):
            affinity.pin(client, A, float(number), 10)
        assert len(affinity) == 100

    def test_a_client_is_back_if_its_pin_has_expired(self) -> None:
        affinity = Affinity()
        affinity.pin("192.0.2.1", A, 0.0, 10)
        affinity.pin("192.0.2.2", B, 0.0, 10)
        affinity.retain({B})
        assert affinity.find("192.0.2.1", 10.0, 10) is None
        assert not affinity.is_back("192.0.2.1"), "its backend has left"
        assert affinity.find("192.0.2.2", 10.0, 10) is None
        assert affinity.is_back("192.0.2.2")
        assert affinity.find("192.0.2.3", 10.0, 10) is None
        assert not affinity.is_back("192.0.2.3"), "it is new"

    def test_a_choice_is_not_a_pin(self) -> None:
        affinity = Affinity()
        affinity.pin("192.0.2.1", A, 0.0, 10)
        assert affinity.choice("192.0.2.1") is None
        affinity.choose("192.0.2.1", B)
        assert affinity.choice("192.0.2.1") == B
        assert affinity.find("192.0.2.1", 10.0, 10) is None
        affinity.pin("192.0.2.1", B, 10.0, 10)
        assert affinity.choice("192.0.2.1") is None
        assert affinity.find("192.0.2.1", 11.0, 10) == B

    def test_a_choice_does_not_delay_that_the_client_is_forgotten(self) -> None:
        affinity = Affinity(capacity=2)
        affinity.pin("192.0.2.1", A, 0.0, 10)
        affinity.pin("192.0.2.2", A, 1.0, 10)
        affinity.choose("192.0.2.1", B)
        affinity.pin("192.0.2.3", A, 20.0, 10)
        assert not affinity.is_back("192.0.2.1")
        assert affinity.is_back("192.0.2.2")

    @pytest.mark.parametrize(
        ("at_most", "left"),
        [
            pytest.param(1000, 10, id="all that have expired"),
            pytest.param(200, 54, id="some of them"),
            pytest.param(0, 254, id="none"),
        ],
    )
    def test_expired_pins_are_forgotten_apart_from_the_others(
        self, at_most: int, left: int
    ) -> None:
        affinity = Affinity()
        for number, client in enumerate(CLIENTS):
            affinity.pin(client, A, float(number), 10)
        assert affinity.trim_expired(253.0, at_most=at_most) == 254 - left
        assert len(affinity) == left
        assert affinity.find(CLIENTS[-1], 253.0, 10) == A

    def test_clear(self) -> None:
        affinity = Affinity()
        affinity.pin("192.0.2.1", A, 0.0, 10)
        affinity.clear()
        assert affinity.find("192.0.2.1", 0.0, 10) is None
        assert len(affinity) == 0


@pytest.mark.parametrize(
    ("sizes", "most", "share"),
    [
        pytest.param([], 10, 10, id="no pins at all"),
        pytest.param([3, 4], 10, 10, id="all together have fewer"),
        pytest.param([8, 8], 10, 5, id="alike"),
        pytest.param([2, 100], 10, 8, id="the one with few keeps them"),
        pytest.param([1, 2, 100, 100], 10, 3, id="what is left is divided"),
        pytest.param([1] * 20, 10, 0, id="more ports than pins"),
    ],
)
def test_a_fair_share(sizes: list[int], most: int, share: int) -> None:
    assert fair_share(sizes, most) == share
    assert sum(min(size, share) for size in sizes) <= most


def test_the_clients_that_were_away_for_longest_are_forgotten_first() -> None:
    affinity = Affinity()
    for number, client in enumerate(CLIENTS):
        affinity.pin(client, A, float(number), 1000.0)
    assert affinity.trim(100, at_most=50) == 50
    assert affinity.trim(100, at_most=1000) == len(CLIENTS) - 150
    assert affinity.trim(100, at_most=1000) == 0
    assert affinity.find(CLIENTS[-100], 300.0, 1000.0) == A
    assert affinity.find(CLIENTS[-101], 300.0, 1000.0) is None
