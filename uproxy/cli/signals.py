"""The signals by which people, shells and supervisors tell uproxy to stop, or to reload."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uproxy.cli.early_hangup import hangup_received

_STANDARD_STREAMS = (0, 1, 2)


class Signals:
    """What has been received so far."""

    def __init__(self, terminals: list[int], *, reloads: bool, hangup_ignored: bool) -> None:
        self.stop = asyncio.Event()
        """Set by the first signal that asks uproxy to stop."""
        self.stop_now = asyncio.Event()
        """Set by the second one."""
        self._terminals = terminals
        self._reloads = reloads
        self._hangup_ignored = hangup_ignored
        self._reload: Callable[[], None] | None = None
        self._asked = False
        """Whether a reload was asked for before there was anything to reload."""

    def when_hung_up(self, reload: Callable[[], None]) -> None:
        """Call this on SIGHUP from now on, and at once if there has been one."""
        self._reload = reload
        if self._asked:
            reload()

    def on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP and self._reloads and not self._terminal_closed():
            self._asked = True
            if self._reload is not None and not self.stop.is_set():
                self._reload()
        elif not self.stop.is_set():
            self.stop.set()
        elif number is not signal.SIGHUP:
            self.stop_now.set()

    def _terminal_closed(self) -> bool:
        """Whether SIGHUP means what it says: the terminal is gone. When a shell ends before its
        terminal does, this is known only from the second SIGHUP on, which the kernel sends."""
        poll = select.poll()
        for each in self._terminals:
            poll.register(each, select.POLLHUP)
        return not self._hangup_ignored and bool(self._terminals and poll.poll(0))


@contextmanager
def stop_signals(reloads: bool) -> Iterator[Signals]:
    """Handle SIGTERM, SIGINT and SIGHUP while the context is open. `reloads`: whether SIGHUP is for
    reloading; it stops uproxy otherwise.

    A second SIGHUP does not end the draining: when a terminal is closed, its shell sends one SIGHUP
    and the kernel another. A signal that was ignored at the start does not stop uproxy: SIGHUP
    under nohup(1), and SIGINT in the background of a script, where Ctrl-C is meant for other
    processes.
    """
    ignored = {
        each for each in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_IGN
    }
    signals = Signals(
        [each for each in _STANDARD_STREAMS if os.isatty(each)],
        reloads=reloads,
        hangup_ignored=signal.SIGHUP in ignored,
    )
    handled = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - ignored
    if reloads:
        handled.add(signal.SIGHUP)
    loop = asyncio.get_running_loop()
    for number in handled:
        loop.add_signal_handler(number, signals.on_signal, number)
    if hangup_received():
        signals.on_signal(signal.SIGHUP)
    try:
        yield signals
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
