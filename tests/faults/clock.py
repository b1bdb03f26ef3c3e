"""Time that passes only when nothing else can happen, and an event loop that goes by it.

A minute of back-offs takes milliseconds, and what happens first is decided by the run alone.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

_EPOCH: Final = 1_750_000_000.0
_BEGIN: Final = 1000.0
_TURNS: Final = 20_000
"""Turns of the loop in one second of this time: more, and something goes round in circles."""
_EVER: Final = 3600.0
"""Seconds; what has not happened after so long never will."""


class Stuck(Exception):
    """Nothing will ever happen again, or the same thing again and again."""


class Clock:
    """The present moment."""

    def __init__(self) -> None:
        self.now = _BEGIN

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return _EPOCH + self.now

    @property
    def passed(self) -> float:
        """Seconds since the beginning."""
        return self.now - _BEGIN

    @contextmanager
    def instead_of_time(self) -> Iterator[None]:
        """The `time` module returns this time, for modules that are not given a clock."""
        before = time.monotonic, time.time, time.perf_counter
        time.monotonic, time.time, time.perf_counter = self.monotonic, self.time, self.monotonic
        try:
            yield
        finally:
            time.monotonic, time.time, time.perf_counter = before


class VirtualLoop(asyncio.SelectorEventLoop):
    """What threads would do is done at some moment a little later; `readiness` says which of
    EVENT_READ and EVENT_WRITE a descriptor is ready for."""

    def __init__(self, clock: Clock, rng: random.Random, readiness: Callable[[int], int]) -> None:
        self._clock = clock
        self._rng = rng
        super().__init__(_Selector(clock, readiness))

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        self.call_later(self._rng.choice((0.0, 0.001, 0.2)), _run, future, func, args)
        return future


def _run(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = func(*args)
    except Exception as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)


class _Selector(selectors.BaseSelector):
    """Lets time pass instead of waiting."""

    def __init__(self, clock: Clock, readiness: Callable[[int], int]) -> None:
        self._clock = clock
        self._readiness = readiness
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._pipe = -1
        """The loop's pipe to itself, which is registered first and for which nothing comes."""
        self._own: int | None = None
        """What it is called in here."""
        self._second = 0.0
        self._turns = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if self._own is None:
            self._pipe = number
            self._own = number = -1 - number
        key = selectors.SelectorKey(fileobj, number, events, data)
        self._keys[number] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(self._number(fileobj))

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = self._number(fileobj)
        self._keys[number] = key = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._count_turn()
        ready = []
        for number, key in self._keys.items():
            mask = key.events & self._readiness(number) if number >= 0 else 0
            if mask:
                ready.append((key, mask))
        if not ready and timeout != 0:
            if timeout is None or timeout > _EVER:
                raise Stuck("nothing is left to wait for")
            self._clock.now += max(timeout, 0.0)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[self._number(fileobj)]

    def close(self) -> None:
        self._keys.clear()

    def _number(self, fileobj: Any) -> int:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if self._own is not None and number == self._pipe:
            return self._own
        return int(number)

    def _count_turn(self) -> None:
        self._turns += 1
        if self._clock.now - self._second >= 1:
            self._second, self._turns = self._clock.now, 0
        elif self._turns > _TURNS:
            raise Stuck(f"{_TURNS} turns of the loop in a second, and no end")
