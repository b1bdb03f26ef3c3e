"""Which known word a misspelt one stands for."""

from __future__ import annotations

import pytest

from uproxy.core import suggestions
from uproxy.core.suggestions import closest, did_you_mean

FIELDS = ["nodePort", "port", "targetPort", "clusterIP"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        pytest.param("nodeport", "nodePort", id="capitals"),
        pytest.param("NodePorts", "nodePort", id="plural"),
        pytest.param("prot", "port", id="letters that have changed places"),
        pytest.param("clusterIp", "clusterIP", id="an abbreviation"),
        pytest.param("selector", "", id="like none"),
        pytest.param("", "", id="nothing"),
        pytest.param("nodePort" * 100_000, "", id="so long that comparing it would take minutes"),
    ],
)
def test_the_closest_word(word: str, meant: str) -> None:
    assert closest(word, FIELDS) == meant
    assert did_you_mean(word, FIELDS) == (f'; did you mean "{meant}"?' if meant else "")


def test_a_mistake_that_is_made_ten_thousand_times_is_compared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[str] = []

    def spy(word: str, known: object, n: int) -> list[str]:
        compared.append(word)
        return ["port"]

    monkeypatch.setattr(suggestions, "get_close_matches", spy)
    found = {closest("Portt-of-this-test", iter(["port"])) for _ in range(10_000)}
    assert (found, compared) == ({"port"}, ["portt-of-this-test"])
