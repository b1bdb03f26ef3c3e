"""The figures, by name. README.md says what each of them means.

Where there is CPU, it is the first: it scatters least from run to run.
"""

from __future__ import annotations

from typing import Final

from bench.wire.results import Figure

RATE: Final = "rate"
P50: Final = "p50"
P99: Final = "p99"
CPU: Final = "cpu"
ERRORS: Final = "errors"
"""Never a column of the table: if there are any, a line below it says so."""
THROUGHPUT: Final = "throughput"
LOSS: Final = "loss"
HELD: Final = "held"
PROCESS: Final = "process memory"
KERNEL: Final = "kernel memory"
TOTAL: Final = "process total"
P99_CHURN: Final = "p99 with churn"
SLOWDOWN: Final = "slowdown"
CHANGES: Final = "changes"

_P50 = Figure(name=P50, unit="us", higher_is_better=False)
_P99 = Figure(name=P99, unit="us", higher_is_better=False)
_LOSS = Figure(name=LOSS, unit="%", higher_is_better=False, digits=2, compared=False)


def _rate(unit: str) -> Figure:
    return Figure(name=RATE, unit=unit)


def _cpu(unit: str, digits: int = 1) -> Figure:
    return Figure(name=CPU, unit=unit, higher_is_better=False, digits=digits)


REQUESTS: Final = (_cpu("us/req"), _rate("req/s"), _P50, _P99)
CONNECTIONS: Final = (_cpu("us/conn"), _rate("conn/s"), _P99)
BULK: Final = (_cpu("s/GB", 3), Figure(name=THROUGHPUT, unit="Gbit/s", digits=2))
DATAGRAMS: Final = (_cpu("us/echo"), _rate("echoes/s"), _LOSS)
QUESTIONS: Final = (_cpu("us/answer"), _rate("answers/s"), _LOSS)
BURST: Final = (_cpu("us/conn"), _P50, _P99)
_HELD = Figure(name=HELD, unit="connections", compared=False)
TRICKLE: Final = (_cpu("us/message"), _P50, _P99, _HELD)
MEMORY: Final = (
    _HELD,
    Figure(name=PROCESS, unit="B/conn", higher_is_better=False),
    Figure(name=KERNEL, unit="B/conn", higher_is_better=False),
    Figure(name=TOTAL, unit="MB", higher_is_better=False, digits=1),
)
CHURN: Final = (
    _P99,
    Figure(name=P99_CHURN, unit="us", higher_is_better=False),
    Figure(name=SLOWDOWN, unit="x", higher_is_better=False, digits=2),
    Figure(name=CHANGES, unit="1/s"),
)
