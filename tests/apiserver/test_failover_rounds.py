"""Rounds over the addresses of an API server, with any mixture of answers, in simulated time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import Candidate, Candidates, candidate_at
from uproxy.apiserver.failover_client import FailoverClient, _Probe
from uproxy.apiserver.unreachable import ApiUnreachable

PATIENCE, HEAD_START = 5.0, 1.0


class Answer(NamedTuple):
    """What an address answers when it is asked whether it is ready."""

    kind: str
    """ "ready", "not ready", "refused" or "silent"."""
    after: float
    """Seconds."""


ANSWERS = st.one_of(
    st.builds(
        Answer,
        st.sampled_from(["ready", "not ready", "refused"]),
        # 3.07 s: a neighbour that does not answer is unreachable after three ARP requests.
        st.sampled_from([0.0, 0.3, 1.0, 1.7, 3.07, 4.9]),
    ),
    st.just(Answer("silent", PATIENCE)),
)
ADDRESSES = st.lists(st.lists(ANSWERS, min_size=1, max_size=4), min_size=1, max_size=8)
"""What each address answers in turn, over and over again."""


class SimulatedTime(asyncio.SelectorEventLoop):
    """An event loop in which all waits are over at once."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self.now


class _Impatient(selectors.DefaultSelector):
    def __init__(self, loop: SimulatedTime) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.now += max(0.0, timeout or 0.0)
        return super().select(0)


class Rounds:
    """A client whose addresses answer as they are told."""

    def __init__(self, addresses: Sequence[Sequence[Answer]], monkeypatch: pytest.MonkeyPatch):
        access = Access(origin="a test", in_cluster=True, server="https://192.0.2.0:6443")
        others = [f"192.0.2.{number}:6443" for number in range(1, len(addresses))]
        candidates = Candidates(access, [candidate_at(access, each, "a test") for each in others])
        self.answers = dict(zip(candidates.all, map(list, addresses), strict=True))
        self.asked = set[Candidate]()
        """Those that have not answered yet."""
        self.client = FailoverClient(access, candidates)
        monkeypatch.setattr(self.client, "_probe", self._probe)

    async def _probe(self, candidate: Candidate) -> _Probe:
        assert candidate not in self.asked, "an address is asked twice at the same time"
        self.asked.add(candidate)
        answers = self.answers[candidate]
        answers.append(answers.pop(0))
        kind, after = answers[-1]
        try:
            await asyncio.sleep(after)
        finally:
            self.asked.discard(candidate)
        error = None if kind == "ready" else ApiUnreachable(kind)
        return _Probe(error, answers=kind == "not ready")

    async def one(self) -> Candidate | None:
        try:
            async with asyncio.timeout(1000):
                return await self.client._try_all()
        except ApiUnreachable:
            return None


@given(addresses=ADDRESSES)
@settings(max_examples=300)
def test_a_round_ends_in_time_at_the_best_address(addresses: list[list[Answer]]) -> None:
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        asyncio.Runner(loop_factory=SimulatedTime) as runner,
    ):
        loop = runner.get_loop()
        rounds = Rounds(addresses, monkeypatch)
        for _ in range(3):
            began = loop.time()
            chosen = runner.run(rounds.one())
            assert loop.time() - began <= len(addresses) * HEAD_START + PATIENCE + 0.01
            assert not rounds.asked, "nothing is left behind"
            always = [{each.kind for each in answers} for answers in rounds.answers.values()]
            if {"ready"} in always:
                assert chosen is not None
            if not {"ready", "not ready"} & set[str]().union(*always):
                assert chosen is None
