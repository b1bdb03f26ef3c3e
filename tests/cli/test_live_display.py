"""What changes, shown in a pipe: one below the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uproxy.cli.live.listing import Explanation, Listing, Order, Page, Row
from uproxy.cli.live_display import print_again, show_live
from uproxy.cli.status_client import NoStatus


class Text:
    def __init__(self, text: str) -> None:
        self._text = text

    def listing(self, order: Order, width: int | None) -> Listing:
        assert order == Order("name")
        assert width is None
        return Listing(["summary"], ["HEAD"], [Row(self._text, [self._text])])


def page(*answers: str | NoStatus) -> Page:
    """Gives one answer after the other; then somebody presses Ctrl-C."""
    left: Iterator[str | NoStatus] = iter(answers)

    def explain(service: str) -> Explanation:
        raise AssertionError("there are no keys in a pipe")

    def sample() -> Text:
        answer = next(left, None)
        if answer is None:
            raise KeyboardInterrupt
        if isinstance(answer, NoStatus):
            raise answer
        return Text(answer)

    return Page(sample, explain, ["name", "other"])


def test_it_goes_on_through_an_outage(capsys: pytest.CaptureFixture[str]) -> None:
    show_live(page("first", NoStatus("no uproxy answers"), "again"), interval=0)
    assert capsys.readouterr().out.split("\n\n") == [
        "summary\nHEAD\nfirst",
        "Trying again: no uproxy answers",
        "summary\nHEAD\nagain",
        "",
    ]


def test_it_begins_only_if_uproxy_answers() -> None:
    with pytest.raises(NoStatus):
        show_live(page(NoStatus("no uproxy answers")), interval=0)
    with pytest.raises(NoStatus):
        print_again(lambda: str(page(NoStatus("no uproxy answers")).sample()), interval=0)


def test_documents_are_all_that_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    answers: Iterator[str | NoStatus] = iter(["{1}", NoStatus("no uproxy answers"), "{2}"])

    def document() -> str:
        answer = next(answers, None)
        if answer is None:
            raise KeyboardInterrupt
        if isinstance(answer, NoStatus):
            raise answer
        return answer

    print_again(document, interval=0)
    said = capsys.readouterr()
    assert said.out == "{1}\n{2}\n"
    assert said.err == "uproxy: trying again: no uproxy answers\n"
