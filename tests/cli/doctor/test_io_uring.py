"""What the doctor says about an io_uring that cannot be had: what refuses it, and what to do."""

from __future__ import annotations

import errno
import sys

import pytest

from tests.cli.doctor.test_checks import findings
from uproxy.cli.doctor.io_uring_facts import (
    IoUring,
    examine_io_uring,
    is_exempt,
    is_filtered,
    release,
)

PROFILE = "use a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
POLICY = "allow it in the policy of SELinux, AppArmor or another security module"
EFFECT = "workers use epoll, and requests and datagrams cost a quarter more CPU"


@pytest.mark.parametrize(
    ("facts", "text", "advice"),
    [
        pytest.param(
            IoUring(error=errno.EINVAL, release=(5, 15)),
            "Linux 5.15 is too old for it",
            "use Linux 6.1 or newer",
            id="old kernel",
        ),
        pytest.param(
            IoUring(error=errno.ENOSYS, release=(4, 19, 7), filtered=True),
            "Linux 4.19 is too old for it",
            "use Linux 6.1 or newer",
            id="older than io_uring",
        ),
        pytest.param(
            IoUring(error=errno.EPERM, disabled=2, exempt=True, filtered=True),
            "switched off by kernel.io_uring_disabled=2",
            "sysctl kernel.io_uring_disabled=0",
            id="sysctl 2",
        ),
        pytest.param(
            IoUring(error=errno.EPERM, disabled=1),
            "kernel.io_uring_disabled is 1, which allows it only to root and to the group in "
            "kernel.io_uring_group",
            "sysctl kernel.io_uring_disabled=0, or put this user into that group",
            id="sysctl 1",
        ),
        pytest.param(
            IoUring(error=errno.EPERM, disabled=1, exempt=True, filtered=True),
            "refused by a seccomp filter (Operation not permitted)",
            PROFILE,
            id="sysctl 1, of the group, in a container",
        ),
        pytest.param(
            IoUring(error=errno.EPERM, disabled=1, exempt=True),
            "refused by a security module (Operation not permitted)",
            POLICY,
            id="sysctl 1, of the group",
        ),
        pytest.param(
            IoUring(error=errno.EPERM, filtered=True),
            "refused by a seccomp filter (Operation not permitted)",
            PROFILE,
            id="seccomp",
        ),
        pytest.param(
            IoUring(error=errno.ENOSYS, filtered=True),
            "refused by a seccomp filter (Function not implemented)",
            PROFILE,
            id="seccomp that hides it",
        ),
        pytest.param(
            IoUring(error=errno.EACCES),
            "refused by a security module (Permission denied)",
            POLICY,
            id="SELinux",
        ),
        pytest.param(
            IoUring(error=errno.ENOSYS),
            "not part of this kernel",
            "use a kernel with CONFIG_IO_URING, outside of sandboxes such as gVisor",
            id="sandbox",
        ),
        pytest.param(
            IoUring(error=errno.ENOMEM, memlock=65536),
            "no memory for it: locked memory is limited to 64 KiB, or that of the cgroup is used",
            "ulimit -l unlimited, or LimitMEMLOCK=infinity (systemd); or allow more memory",
            id="memlock",
        ),
        pytest.param(
            IoUring(error=errno.ENOMEM, memlock=sys.maxsize),
            "no memory for it: the memory of the cgroup or of the machine is used",
            "allow it more memory",
            id="memory",
        ),
        pytest.param(
            IoUring(error=errno.ENFILE),
            "does not work (Too many open files in system)",
            "nothing to do: only speed is lost",
            id="something else",
        ),
    ],
)
def test_what_refuses_it(facts: IoUring, text: str, advice: str) -> None:
    found = findings(io_uring=facts)["io_uring"]
    assert (found.result, found.text, found.advice) == ("warn", f"{text}: {EFFECT}", advice)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("6.8.0-31-generic", (6, 8, 0), id="Ubuntu"),
        pytest.param("5.15", (5, 15), id="short"),
        pytest.param("6.18.44-fc-v669", (6, 18, 44), id="of a provider"),
        pytest.param("", (), id="none"),
    ],
)
def test_release(text: str, found: tuple[int, ...]) -> None:
    assert release(text) == found


@pytest.mark.parametrize(
    ("group", "capabilities", "exempt"),
    [
        pytest.param("-1", "0", False, id="no group"),
        pytest.param("100", "0", True, id="of the group"),
        pytest.param("101", "0", False, id="of another group"),
        pytest.param("-1", "0000000000200000", True, id="CAP_SYS_ADMIN"),
        pytest.param("-1", "0000000000001000", False, id="CAP_NET_ADMIN"),
    ],
)
def test_exempt_from_the_sysctl(group: str, capabilities: str, exempt: bool) -> None:
    assert is_exempt(group, {7, 100}, f"Name:\tx\nCapEff:\t{capabilities}\n") is exempt


@pytest.mark.parametrize(
    ("status", "filtered"),
    [
        pytest.param("Seccomp:\t0\nSeccomp_filters:\t0\n", False, id="none"),
        pytest.param("Seccomp:\t2\nSeccomp_filters:\t1\n", True, id="a filter"),
        pytest.param("Name:\tpython\n", False, id="not said"),
    ],
)
def test_a_seccomp_filter(status: str, filtered: bool) -> None:
    assert is_filtered(status) is filtered


def test_this_machine() -> None:
    found = examine_io_uring({}, "")
    assert found.release >= (4, 0)
    assert not found.exempt
    assert found.memlock > 0
