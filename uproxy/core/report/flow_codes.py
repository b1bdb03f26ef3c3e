"""What the two letters of a termination code mean, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from uproxy.core.flows.flow_record import Ender, Phase

ENDERS: Final[Mapping[Ender, str]] = {
    Ender.BOTH: "both ends have closed it",
    Ender.CLIENT: "the client has reset it",
    Ender.BACKEND: "the backend has refused it, did not answer, or has reset it",
    Ender.PROXY: "uproxy has refused it, or had an error",
    Ender.RESOURCES: "uproxy lacked descriptors, memory or room for flows",
    Ender.KILLED: "its Service or backend was removed, or uproxy was stopped",
    Ender.IDLE: "nothing was transferred for too long",
}
PHASES: Final[Mapping[Phase, str]] = {
    Phase.COMPLETE: "everything was delivered",
    Phase.CONNECTING: "before a backend had answered",
    Phase.DATA: "while both directions were open",
    Phase.LAST: "when one direction had ended, and the other one had not",
}


def code_text(code: str) -> str:
    """A code in words; "" if it is none."""
    try:
        ender, phase = Ender(code[:1]), Phase(code[1:])
    except ValueError:
        return ""
    return f"{ENDERS[ender]}, {PHASES[phase]}"
