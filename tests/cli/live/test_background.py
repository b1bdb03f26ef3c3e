"""Questions that a thread asks."""

from __future__ import annotations

import select
import threading

from uproxy.cli.live.background import Answer, Background

PATIENCE = 20


def next_answers(background: Background) -> list[Answer]:
    ready, _, _ = select.select([background.fd], [], [], PATIENCE)
    assert ready
    return background.answers()


def test_answers_come_in_the_order_of_questions() -> None:
    error = ValueError("no")

    def fail() -> None:
        raise error

    found: list[Answer] = []
    with Background() as background:
        background.ask("a", lambda: 1)
        background.ask("b", fail)
        background.ask("c", lambda: 3)
        while len(found) < 3:
            found += next_answers(background)
    assert found == [Answer("a", 1, None), Answer("b", None, error), Answer("c", 3, None)]


def test_it_does_not_wait_for_an_answer_at_the_end() -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        answer.wait(PATIENCE)

    with Background() as background:
        background.ask("slow", slow)
        assert asked.wait(PATIENCE)
    # The answer comes when nobody reads any more, and nothing breaks.
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "live":
            thread.join(PATIENCE)
    assert "live" not in [each.name for each in threading.enumerate()]
