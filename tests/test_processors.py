"""Whether there are processors to spare: real processors, and control groups as files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from uproxy.processors import are_spare


def written(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "spare"),
    [
        pytest.param({}, True, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, True, id="version 2, the top"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
            True,
            id="version 2, a container without limit",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
            False,
            id="version 2, a container with a limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/uproxy.service\n",
                "sys/fs/cgroup/system.slice/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/system.slice/uproxy.service/cpu.max": "max 100000\n",
            },
            False,
            id="version 2, a limit further up",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/uproxy.service\n",
                "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
            },
            True,
            id="version 2, a limit of others",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n",
            },
            True,
            id="version 1 without limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "20000\n",
            },
            False,
            id="version 1 with a limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/kubepods/pod1/c\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "20000\n",
            },
            False,
            id="version 1, a container that sees the host's path",
        ),
    ],
)
def test_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str], *, spare: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert are_spare(written(tmp_path, files)) is spare


def test_none_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert not are_spare(tmp_path)


def test_of_this_machine() -> None:
    """Whatever it is, it can be read."""
    assert are_spare() in (True, False)
