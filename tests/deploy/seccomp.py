"""Runs a command under a seccomp profile, which is loaded as container runtimes load it:

    python -m tests.deploy.seccomp PROFILE COMMAND...

runc and crun hand each rule of a profile to libseccomp; so does this. Every Debian has the library,
because apt needs it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

LIBRARY: Final = "libseccomp.so.2"
_ACTIONS: Final = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_COMPARISONS: Final = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_UNKNOWN: Final = -1
"""__NR_SCMP_ERROR: a name that the library does not know. Runtimes leave such names out."""


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


def _action(rule: Mapping[str, Any], kind: str, number: str) -> int:
    action = _ACTIONS[rule[kind]]
    denied = action == _ACTIONS["SCMP_ACT_ERRNO"]
    return action | rule.get(number, errno.EPERM) if denied else action


def _comparisons(rule: Mapping[str, Any]) -> ctypes.Array[_Comparison]:
    found = [
        _Comparison(each["index"], _COMPARISONS[each["op"]], each["value"], each.get("valueTwo", 0))
        for each in rule.get("args", ())
    ]
    return (_Comparison * len(found))(*found)


def load(profile: Mapping[str, Any]) -> None:
    """From now on, in this process and its children. Raises OSError where that is refused."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    default = _action(profile, "defaultAction", "defaultErrnoRet")
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    for rule in profile["syscalls"]:
        action = _action(rule, "action", "errnoRet")
        comparisons = _comparisons(rule)
        for name in rule["names"]:
            call = library.seccomp_syscall_resolve_name(name.encode())
            if call == _UNKNOWN:
                continue
            _check(
                library.seccomp_rule_add_array(
                    context, ctypes.c_uint32(action), call, len(comparisons), comparisons
                )
            )
    # This also sets no_new_privs, as allowPrivilegeEscalation: false does.
    _check(library.seccomp_load(context))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))


if __name__ == "__main__":
    load(json.loads(Path(sys.argv[1]).read_text()))
    os.execvp(sys.argv[2], sys.argv[2:])
