"""Puts the kernel in plain Python in the place of the real one, for the modules of uproxy."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

from tests.faults.kernel import Kernel
from tests.faults.sockets import Os, Resource, Sockets

_PACKAGES: Final = (
    "uproxy.net.listening",
    "uproxy.net.channel",
    "uproxy.control.listeners",
    "uproxy.control.workers",
)


@contextmanager
def installed(kernel: Kernel) -> Iterator[None]:
    """What opens sockets, or is sent some, does so in this kernel."""
    fakes: dict[ModuleType, Any] = {socket: Sockets(kernel), os: Os(), resource: Resource()}
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith(_PACKAGES):
                for attribute, value in list(vars(module).items()):
                    if isinstance(value, ModuleType) and value in fakes:
                        stack.enter_context(patch.object(module, attribute, fakes[value]))
        yield
