"""Text that changes on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uproxy.cli.live_display import fit_to_height, show_live
from uproxy.cli.status_client import NoStatus


@pytest.mark.parametrize(
    ("count", "height", "last"),
    [
        pytest.param(0, 5, None, id="nothing"),
        pytest.param(5, 5, "line 4", id="just fits"),
        pytest.param(6, 5, "... 2 more lines", id="one too many"),
        pytest.param(10_000, 24, "... 9,977 more lines", id="far too many"),
    ],
)
def test_fit_to_height(count: int, height: int, last: str | None) -> None:
    shown = fit_to_height([f"line {number}" for number in range(count)], height)
    assert len(shown) == min(count, height)
    assert shown[-1:] == ([] if last is None else [last])


def test_it_goes_on_through_an_outage(capsys: pytest.CaptureFixture[str]) -> None:
    answers: Iterator[list[str] | NoStatus] = iter(
        [["first"], NoStatus("no uproxy answers"), ["again"]]
    )

    def render() -> list[str]:
        answer = next(answers, None)
        if answer is None:
            raise KeyboardInterrupt
        if isinstance(answer, NoStatus):
            raise answer
        return answer

    show_live(render, interval=0)
    assert capsys.readouterr().out.split("\n\n") == [
        "first",
        "Trying again: no uproxy answers",
        "again",
        "",
    ]


def test_it_begins_only_if_uproxy_answers() -> None:
    def render() -> list[str]:
        raise NoStatus("no uproxy answers")

    with pytest.raises(NoStatus):
        show_live(render, interval=0)
