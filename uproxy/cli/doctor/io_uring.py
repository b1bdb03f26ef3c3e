"""Why workers cannot use io_uring, and what has to change for it.

The kernel says only "Operation not permitted", whether a sysctl, a seccomp filter or a security
module refuses. So the answer is concluded from the other facts.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result
from uproxy.cli.doctor.io_uring_facts import DISABLED, GROUP, IoUring

_OLDEST: Final = (6, 1)
"""The first kernel with IORING_SETUP_DEFER_TASKRUN."""
_FIRST: Final = (5, 1)
_CALLS: Final = "io_uring_setup, io_uring_enter and io_uring_register"
_REFUSALS: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})


def io_uring(machine: Machine) -> Finding:
    facts = machine.io_uring
    if not facts.error:
        return Finding("io_uring", Result.OK, "works")
    why, advice = _refused_by(facts)
    text = f"{why}: workers use epoll, and requests and datagrams cost a quarter more CPU"
    return Finding("io_uring", Result.WARN, text, advice)


def _refused_by(facts: IoUring) -> tuple[str, str]:
    """What refuses it, and what to do."""
    reason = os.strerror(facts.error)
    if facts.release < _OLDEST:
        version = ".".join(map(str, facts.release[:2]))
        return f"Linux {version} is too old for it", "use Linux 6.1 or newer"
    if facts.error == errno.EPERM and (facts.disabled > 1 or (facts.disabled and not facts.exempt)):
        return _by_sysctl(facts)
    if facts.error in _REFUSALS and facts.filtered:
        advice = f"use a seccomp profile that allows {_CALLS}"
        return f"refused by a seccomp filter ({reason})", advice
    if facts.error == errno.ENOSYS:
        advice = "use a kernel with CONFIG_IO_URING, outside of sandboxes such as gVisor"
        return "not part of this kernel", advice
    if facts.error in _REFUSALS:
        advice = "allow it in the policy of SELinux, AppArmor or another security module"
        return f"refused by a security module ({reason})", advice
    if facts.error == errno.ENOMEM:
        return _by_memory(facts)
    return f"does not work ({reason})", "nothing to do: only speed is lost"


def _by_sysctl(facts: IoUring) -> tuple[str, str]:
    allow = f"sysctl {DISABLED}=0"
    if facts.disabled == 1:
        text = f"{DISABLED} is 1, which allows it only to root and to the group in {GROUP}"
        return text, f"{allow}, or put this user into that group"
    return f"switched off by {DISABLED}={facts.disabled}", allow


def _by_memory(facts: IoUring) -> tuple[str, str]:
    if facts.memlock == sys.maxsize:
        text = "no memory for it: the memory of the cgroup or of the machine is used"
        return text, "allow it more memory"
    limit = f"{facts.memlock >> 10:,} KiB"
    text = f"no memory for it: locked memory is limited to {limit}, or that of the cgroup is used"
    return text, "ulimit -l unlimited, or LimitMEMLOCK=infinity (systemd); or allow more memory"
