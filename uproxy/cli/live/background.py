"""Questions to uproxy, asked by a thread of their own: keys work while an answer is awaited."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self


class Answer(NamedTuple):
    """What came of a question."""

    purpose: str
    """As it was asked."""
    value: Any
    error: Exception | None
    """Why there is no value."""


class Background:
    """Asks one question after the other. `fd` can be read when there is an answer.

    The thread is not waited for at the end, since an answer may take 10 s to fail.
    """

    def __init__(self) -> None:
        self._questions = queue.SimpleQueue[tuple[str, Callable[[], Any]] | None]()
        self._answers = queue.SimpleQueue[Answer]()
        self.fd, self._wake = os.pipe()
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Background {'closed' if self._closed else 'open'}>"

    def __enter__(self) -> Self:
        threading.Thread(target=self._ask_all, name="live", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._questions.put(None)
        with self._lock:
            # From here on the thread does not write, as the number may soon be another file's.
            self._closed = True
            os.close(self._wake)
        os.close(self.fd)

    def ask(self, purpose: str, question: Callable[[], Any]) -> None:
        """Call `question` in the thread; an Answer with the same purpose follows."""
        self._questions.put((purpose, question))

    def answers(self) -> list[Answer]:
        """Those that have come since the last call. It is called when `fd` can be read."""
        os.read(self.fd, 4096)
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._answers.get_nowait())
        return found

    def _ask_all(self) -> None:
        while (asked := self._questions.get()) is not None:
            purpose, question = asked
            try:
                answer = Answer(purpose, question(), None)
            except Exception as error:
                answer = Answer(purpose, None, error)
            self._answers.put(answer)
            with self._lock:
                if not self._closed:
                    os.write(self._wake, b".")
