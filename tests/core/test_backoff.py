from __future__ import annotations

import pytest

from uproxy.core.backoff import Backoff


@pytest.mark.parametrize(
    ("backoff", "attempt", "random", "expected"),
    [
        pytest.param(Backoff(initial=0.1, maximum=5), 1, 0.0, 0.1, id="first"),
        pytest.param(Backoff(initial=0.1, maximum=5), 3, 0.0, 0.4, id="doubles"),
        pytest.param(Backoff(initial=0.1, maximum=5), 7, 0.0, 5.0, id="capped: 6.4 s"),
        pytest.param(Backoff(initial=0.1, maximum=5), 10**9, 0.0, 5.0, id="no overflow"),
        pytest.param(Backoff(initial=0.1, maximum=5), 0, 0.0, 0.1, id="zero is the first"),
        pytest.param(Backoff(initial=1, maximum=30, factor=3), 3, 0.0, 9.0, id="factor"),
        pytest.param(Backoff(initial=2, maximum=9, factor=1), 10**9, 0.0, 2.0, id="constant"),
        pytest.param(Backoff(initial=3, maximum=3), 5, 0.0, 3.0, id="initial is maximum"),
        pytest.param(Backoff(initial=1, maximum=30, jitter=0.5), 2, 0.0, 2.0, id="no luck"),
        pytest.param(Backoff(initial=1, maximum=30, jitter=0.5), 2, 0.5, 1.5, id="half of it"),
        pytest.param(Backoff(initial=1, maximum=30, jitter=1.0), 9, 0.9, 3.0, id="full jitter"),
    ],
)
def test_delay(backoff: Backoff, attempt: int, random: float, expected: float) -> None:
    assert backoff.delay(attempt, random) == pytest.approx(expected)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"initial": 0.0, "maximum": 1.0}, id="would spin"),
        pytest.param({"initial": 2.0, "maximum": 1.0}, id="maximum below initial"),
        pytest.param({"initial": 1.0, "maximum": 2.0, "factor": 0.5}, id="shrinks"),
        pytest.param({"initial": 1.0, "maximum": 2.0, "jitter": 1.5}, id="negative delays"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a back-off needs"):
        Backoff(**fields)
