"""Detaches flows from their movers, at moments that a scenario has drawn."""

from __future__ import annotations

from typing import Any, cast

from tests.simulation.files import File
from uproxy.dataplane.tcp.flow import Flow


class Detaching:
    """What was detached, as that excuses what is forbidden otherwise."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []
        """They may hold what a pipe held."""
        self.files: list[File] = []
        """They may leave the ring without another reason."""

    def detach(self, flows: list[Flow], number: int) -> str:
        """Detach one of these, if any is relayed. Says which."""
        relayed = [flow for flow in flows if flow.mover is not None]
        if not relayed:
            return "none"
        flow = relayed[number % len(relayed)]
        assert flow.mover is not None
        self.flows.append(flow)
        self.files += [cast("Any", sock).file for sock in (flow.client_sock, flow.sock)]
        flow.mover.detach()
        return repr(flow)
