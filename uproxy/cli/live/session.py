"""A live command on a terminal: samples, keys and screens, until it is ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Final

from uproxy.cli.live.background import Answer, Background
from uproxy.cli.live.frame import (
    Line,
    divide,
    explanation_lines,
    help_line,
    listing_lines,
    position_of,
)
from uproxy.cli.live.listing import Content, Explanation, Listing, Order, Page
from uproxy.cli.live.terminal import Ended, Terminal
from uproxy.cli.live.view_state import Scene, ViewState, pressed, settled
from uproxy.cli.status_client import NoStatus

_SAMPLE: Final = "sample"
_EXPLANATION: Final = "explanation"


def run(page: Page, content: Content, *, interval: float, rest: float) -> None:
    """Show a page until it is ended by a key or a signal, beginning with what was sampled before.

    It is sampled every `interval` seconds, or less often: after each sample there is a pause of at
    least `rest` times as long as the sample took.
    """
    try:
        with Terminal() as terminal, Background() as background:
            _Session(page, content, terminal, background, interval, rest).run()
    except Ended as ended:
        if ended.number != signal.SIGINT:
            # The terminal is as it was; now the signal does what it does to other programs.
            signal.signal(ended.number, signal.SIG_DFL)
            os.kill(os.getpid(), ended.number)


class _Session:
    def __init__(
        self,
        page: Page,
        content: Content,
        terminal: Terminal,
        background: Background,
        interval: float,
        rest: float,
    ) -> None:
        self._page = page
        self._content = content
        self._terminal = terminal
        self._background = background
        self._interval = interval
        self._rest = rest
        self._state = ViewState(page.first_order)
        self._explanation: Explanation | None = None
        self._notice = ""
        self._asked_at: float | None = None
        self._due = time.monotonic() + interval
        self._cached: tuple[Content, Order, int, Listing] | None = None

    def run(self) -> None:
        while not self._state.ended:
            self._terminal.show(self._screen())
            self._ask_if_due()
            wait = None if self._asked_at else max(self._due - time.monotonic(), 0)
            woken = self._terminal.wait(self._background.fd, wait)
            for key in woken.keys:
                self._press(key)
            if woken.ready:
                for answer in self._background.answers():
                    self._take(answer)

    def _press(self, key: str) -> None:
        before = self._state.explained
        self._state = pressed(self._state, key, self._scene())
        if self._state.explained != before:
            self._explanation = None
            # Otherwise a person would wait up to `interval` for what has been asked for.
            self._due = time.monotonic()

    def _ask_if_due(self) -> None:
        now = time.monotonic()
        if self._asked_at is not None or now < self._due:
            return
        self._asked_at = now
        service = self._state.explained
        if service:
            self._background.ask(_EXPLANATION, lambda: (service, self._page.explain(service)))
        else:
            self._background.ask(_SAMPLE, self._page.sample)

    def _take(self, answer: Answer) -> None:
        now = time.monotonic()
        asked_at, self._asked_at = self._asked_at or now, None
        took = now - asked_at
        self._due = max(asked_at + self._interval, now + self._rest * took)
        if answer.error is not None:
            if not isinstance(answer.error, NoStatus):
                raise answer.error
            self._notice = f"Trying again: {answer.error.format_message()}"
            return
        self._notice = ""
        explained = ""
        if answer.purpose == _SAMPLE:
            self._content = answer.value
        else:
            explained, explanation = answer.value
            if explained == self._state.explained:
                self._explanation = explanation
        if explained != self._state.explained:
            # A key has asked for something else in the meantime.
            self._due = now

    def _screen(self) -> Sequence[Line]:
        scene = self._scene()
        self._state = settled(self._state, scene)
        size, keys = self._terminal.size, self._terminal.has_keys
        if self._state.explained:
            lines = self._explained(size.width)
            frame = divide((), (), self._notice, size, keys=keys)
            return explanation_lines(frame, self._state, lines, help_line(self._state))
        listing = self._listing(size.width)
        frame = divide(listing.summary, listing.head, self._notice, size, keys=keys)
        text = help_line(self._state, position_of(self._state, listing))
        return listing_lines(frame, self._state, listing, text)

    def _scene(self) -> Scene:
        size, keys = self._terminal.size, self._terminal.has_keys
        if self._state.explained:
            lines = self._explained(size.width)
            height = divide((), (), self._notice, size, keys=keys).height
            return Scene((), height, explanation=len(lines))
        listing = self._listing(size.width)
        frame = divide(listing.summary, listing.head, self._notice, size, keys=keys)
        return Scene(listing.rows, frame.height, self._page.sorts)

    def _explained(self, width: int) -> Sequence[str]:
        if self._explanation is None:
            return [f"Asking about {self._state.explained} ..."]
        return self._explanation(width)

    def _listing(self, width: int) -> Listing:
        """With 10,000 frontends, a listing takes longer than a key may."""
        known = self._cached
        order = self._state.order
        if known is None or known[0] is not self._content or known[1:3] != (order, width):
            known = (self._content, order, width, self._content.listing(order, width))
            self._cached = known
        return known[3]
