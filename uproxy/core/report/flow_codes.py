"""What the two letters of a termination code mean, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from uproxy.core.flows.flow_record import Ender, Phase

ENDERS: Final[Mapping[Ender, str]] = {
    Ender.BOTH: "both ends closed it",
    Ender.CLIENT: "the client reset it",
    Ender.BACKEND: "the backend refused it, did not answer, or reset it",
    Ender.PROXY: "uproxy refused it, or had an error",
    Ender.RESOURCES: "uproxy lacked descriptors, memory or room for flows",
    Ender.KILLED: "its Service or backend was removed, or uproxy was stopped",
    Ender.IDLE: "nothing was transferred for too long",
}
PHASES: Final[Mapping[Phase, str]] = {
    Phase.COMPLETE: "everything was delivered",
    Phase.CONNECTING: "before any backend had answered",
    Phase.DATA: "while both directions were open",
    Phase.LAST: "after one direction had ended, and before the other had",
}


def code_text(code: str) -> str:
    """A code in words; "" if there is no such code."""
    try:
        ender, phase = Ender(code[:1]), Phase(code[1:])
    except ValueError:
        return ""
    return f"{ENDERS[ender]}, {PHASES[phase]}"
