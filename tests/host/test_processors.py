"""Whether a processor is spare, with control groups in real and in made-up directories."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from uproxy.host.processors import has_spare_processor


def written(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "spare"),
    [
        pytest.param({}, True, id="no control groups"),
        pytest.param({"proc/self/cgroup": "\nodd\n1:2\n"}, True, id="lines that make no sense"),
        pytest.param(
            {
                "proc/self/cgroup": "odd\n0::/\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
            },
            False,
            id="a line among others that makes no sense",
        ),
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
def test_limits(tmp_path: Path, files: Mapping[str, str], *, spare: bool) -> None:
    assert has_spare_processor(written(tmp_path, files), processors=2) is spare


def test_a_single_processor_is_not_spare(tmp_path: Path) -> None:
    assert not has_spare_processor(tmp_path, processors=1)


_LOOK = """
import os, sys
from pathlib import Path
from uproxy.host.processors import has_spare_processor
group = Path(sys.argv[1])
(group / "cgroup.procs").write_text(str(os.getpid()))
print(has_spare_processor(processors=2))
limit = {"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}
[each] = [each for each in limit if (group / each).exists()]
(group / each).write_text(limit[each])
print(has_spare_processor(processors=2))
"""


@pytest.mark.parametrize(
    "top", ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"]
)
def test_a_limit_of_the_kernel(top: str) -> None:
    """A process in a control group of its own, before and after the group gets a limit."""
    if not has_spare_processor(processors=2):
        pytest.skip("the tests have a limit themselves")
    group = Path(top, f"uproxy-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made in {top} (needs root): {error.strerror}")
    try:
        if not any((group / each).exists() for each in ("cpu.cfs_quota_us", "cpu.max")):
            pytest.skip(f"control groups in {top} have no processor time")
        done = subprocess.run(
            [sys.executable, "-c", _LOOK, str(group)], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["True", "False"]
    finally:
        group.rmdir()
