"""What this process may use of the machine's processors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("sys/fs/cgroup")


def has_spare_processor(root: Path = Path("/"), processors: int | None = None) -> bool:
    """Whether a worker may keep a processor busy while it waits.

    There has to be a second processor, for the processes that the worker waits for. And there must
    be no limit of processor time (cgroups(7): cpu.max, cpu.cfs_quota_us; in a Pod
    `resources.limits.cpu`), because the time spent on polling would be missing for relaying.
    `root`: the directory in which /proc and /sys are. `processors`: how many this process may use,
    by default those of its affinity mask.
    """
    usable = len(os.sched_getaffinity(0)) if processors is None else processors
    return usable > 1 and not _limited(root)


def _limited(root: Path) -> bool:
    for group in _groups(root):
        with suppress(OSError, ValueError):
            if not (group / "cpu.max").read_text().startswith("max"):
                return True
        with suppress(OSError, ValueError):
            if int((group / "cpu.cfs_quota_us").read_text()) > 0:
                return True
    return False


def _groups(root: Path) -> Iterator[Path]:
    """The directories of the control groups that this process is in, and of their parents: a limit
    of any of them applies.

    In a container, /proc may name the group by its path on the host, while the group itself is
    mounted as the top of the tree. So the top is always among them.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if number == "0":
            top = root / _GROUPS
        elif "cpu" in controllers.split(","):
            top = root / _GROUPS / controllers
        else:
            continue
        group = top / path.lstrip("/")
        yield group
        while group != top and top in group.parents:
            group = group.parent
            yield group
