"""How long this process's control groups were kept off the CPU by a quota.

Such a process neither runs nor waits on a run queue (see schedstat.py), so nothing else shows it.
Linux counts it in the cpu.stat of the group that has the quota: throttled_usec in version 2,
throttled_time in nanoseconds in version 1 (Documentation/admin-guide/cgroup-v2.rst,
Documentation/scheduler/sched-bwc.rst).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_UNIT_NS = {"throttled_usec": 1000, "throttled_time": 1}


def throttled_ns(membership: Path = _MEMBERSHIP, root: Path = _ROOT) -> int:
    """CPU time lost to quotas so far, ns over all CPUs, of this process's group or of the one above
    it that lost most; 0 where nothing can be read."""
    lost = 0
    for group in _groups(membership, root):
        with suppress(OSError, ValueError):
            for line in (group / "cpu.stat").read_text().splitlines():
                name, _, value = line.partition(" ")
                lost = max(lost, int(value) * _UNIT_NS.get(name, 0))
    return lost


def _groups(membership: Path, root: Path) -> list[Path]:
    """The folders of the groups with the CPU controller, from the process's own upwards."""
    groups = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers and "cpu" not in controllers.split(","):
                continue
            mount = root / controllers if controllers else root
            group = mount / path.strip("/")
            groups += [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]
    return groups
