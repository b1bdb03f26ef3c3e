"""Defects of the election, which the simulated cluster must notice."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutate import put_in
from tests.simulation.mutation import Mutation, one


def _one(name: str, says: str, module: str, old: str, new: str) -> Mutation:
    return one(name, says, f"core.announcing.{module}", old, new)


ALL: Final = (
    _one(
        "claims-unopposed",
        "an address is taken although another node was first",
        "election",
        "opposed = self._outlook.opposes(address, claim.epoch, claim.sent_at)",
        "opposed = False",
    ),
    _one(
        "blind-time-counts",
        "Leases expire while nobody could have seen them renewed",
        "peers",
        "max(self.changed_at, watched_since)",
        "self.changed_at",
    ),
    _one(
        "never-in-doubt",
        "a node that is cut off from the API server thinks that it is up to date",
        "own_lease",
        "        return now - self._proven <= self.every + pace.SLACK\n",
        "        return self._proven > -inf\n",
    ),
    _one(
        "wire-not-asked",
        "whoever does not renew its Lease is taken for dead at once",
        "succession",
        '        if verdict == "silent":',
        '        if verdict != "nonsense":',
    ),
    _one(
        "wait-for-ever",
        "a node that answers on the wire is never replaced",
        "succession",
        "        if expired >= pace.RESTART:",
        "        if expired >= 1e9:",
    ),
    _one(
        "deaf-in-doubt",
        "a contradiction is not heeded",
        "election",
        "if not hold.announced or self._alone or not self._outlook.fresh(now):",
        "if not hold.announced:",
    ),
    _one(
        "mute-in-doubt",
        "nothing is announced while in doubt",
        "outlook",
        "        return not self.fresh(now)\n",
        "        return False\n",
    ),
    _one(
        "no-contradiction",
        "whoever is in the right does not say so",
        "schedule",
        "        if address in self._due and now >= self._answered.get(address, -inf) + 1.0:",
        "        if False:",
    ),
    _one(
        "forgets-what-it-had",
        "a process that starts does not keep what is on its interfaces",
        "holdings",
        "for address, interface in held_over.items()",
        "for address, interface in list(held_over.items())[:0]",
    ),
    _one(
        "old-news",
        "a list from a cache that is behind replaces what is newer",
        "peers",
        "        if is_older(lease, before):",
        "        if False:",
    ),
    _one(
        "same-epoch-again",
        "whoever takes an address does not say that it comes after the one before",
        "election",
        "min(self._peers.epochs.get(address, 0) + 1, LARGEST_EPOCH)",
        "1",
    ),
    _one(
        "never-yields",
        "a node that has lost an address holds on to it",
        "outlook",
        "            if theirs > epoch or (theirs == epoch and node < self._own.node):",
        "            if False:",
    ),
    _one(
        "silent-for-ever",
        "an address that was given up in doubt is never announced again",
        "election",
        "            if proven if fresh else quiet:",
        "            if False:",
    ),
    _one(
        "no-stand-in",
        "if the best node does not take an address, no other does",
        "succession",
        "orphan.rank * pace.STAND_IN",
        "orphan.rank * 1e9",
    ),
    _one(
        "waits-for-newcomers",
        "a node that has joined because of a death is waited for, although it cannot know of it",
        "succession",
        "return peer is not holder and peer.since + holder.lease.duration <= expires_at",
        "return peer is not holder and expires_at > 0",
    ),
    _one(
        "write-once",
        "a Lease that could not be written is not written again",
        "own_lease",
        "        self._in_flight, self._failed = False, True\n",
        "        self._in_flight, self._failed = True, True\n",
    ),
)
MUTATIONS: Final = {each.name: each for each in ALL}


def apply(name: str) -> None:
    """Before the election is imported."""
    put_in(MUTATIONS[name])
