"""How long clients wait for an address when the node that announces it is lost.

`python -m bench.failover`, as root. Nodes are network namespaces on one segment, each with a real
uproxy, and a client sends datagrams all the time. The time is that from the loss to the first
answer of another node, and it is judged on the worst sample.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tests.netns.announcements import Datagrams
from tests.netns.lb_segment import Announced, Machine, Segment, segment
from tests.netns.node import wait_for

FAULTS: Final[dict[str, Callable[[Machine], None]]] = {
    "kill -9": Machine.kill,
    "SIGSTOP": Machine.freeze,
    "power loss": Machine.power_off,
}
LIMIT: Final = 4.0


def sample(lan: Segment, fault: Callable[[Machine], None]) -> tuple[float, float]:
    """Seconds without an answer, for IPv4 and IPv6."""
    lan.revive()
    held = lan.announced()
    with lan.sending(held.addresses[0]) as ipv4, lan.sending(held.addresses[1]) as ipv6:
        for sent in (ipv4, ipv6):
            wait_for("an answer", partial(sent.first, since=0.0))
        lost = time.monotonic()
        fault(held.node)
        return _waited(ipv4, held, lost), _waited(ipv6, held, lost)


def _waited(sent: Datagrams, held: Announced, lost: float) -> float:
    answer = partial(sent.first, since=lost, other_than=held.node.name)
    wait_for("an answer of another node", answer, 30)
    found = answer()
    assert found is not None
    return found[0] - lost


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.failover")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="all of them by default")
    arguments = parser.parse_args()
    worst = 0.0
    with (
        tempfile.TemporaryDirectory() as directory,
        segment(Path(directory), arguments.nodes) as lan,
    ):
        lan.start()
        lan.serve_several()
        for name in arguments.fault or FAULTS:
            samples = [sample(lan, FAULTS[name]) for _ in range(arguments.samples)]
            for family, times in zip(("IPv4", "IPv6"), zip(*samples, strict=True), strict=True):
                ordered = sorted(times)
                median = ordered[len(ordered) // 2]
                sys.stdout.write(f"{name:<10} {family} median {median:.2f} s")
                sys.stdout.write(f", worst of {len(ordered)} {ordered[-1]:.2f} s\n")
                sys.stdout.flush()
                worst = max(worst, ordered[-1])
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
