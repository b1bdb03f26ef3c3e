"""How often everything is listed again because watches stay silent."""

from __future__ import annotations

from uproxy.sources.kubernetes.suspicion import Suspicion


def test_it_fades_until_a_bookmark_comes() -> None:
    suspicion = Suspicion()
    listed = [number for number in range(1, 200) if suspicion.stayed_silent()]
    assert listed == [1, 3, 7, 15, 31, 63, 103, 143, 183]
    suspicion.bookmark_came()
    assert suspicion.stayed_silent(), "this server sends bookmarks"


def test_a_bookmark_ends_a_row_of_silent_watches() -> None:
    suspicion = Suspicion()
    assert suspicion.stayed_silent()
    assert not suspicion.stayed_silent()
    suspicion.bookmark_came()
    assert suspicion.stayed_silent()
