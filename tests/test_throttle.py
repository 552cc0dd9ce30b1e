"""CPU quotas of control groups, in both versions' files."""

from pathlib import Path

import pytest

from blaster.measure.throttle import throttled_ns


@pytest.mark.parametrize(
    ("membership", "files", "lost"),
    [
        ("0::/a/b\n", {"a/b/cpu.stat": "usage_usec 9\nthrottled_usec 7\n"}, 7000),
        ("0::/a/b\n", {"a/cpu.stat": "throttled_usec 5\n", "a/b/cpu.stat": "nr 1\n"}, 5000),
        ("0::/\n", {"cpu.stat": "throttled_usec 3\n"}, 3000),
        ("4:memory:/x\n1:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.stat": "throttled_time 8\n"}, 8),
        ("1:cpuset:/x\n", {"cpuset/x/cpu.stat": "throttled_time 8\n"}, 0),
        ("0::/a\n", {"a/cpu.stat": "throttled_usec ?\n"}, 0),
        ("0::/../..\n", {}, 0),
        ("nonsense", {}, 0),
    ],
)
def test_throttled_time_is_read(
    tmp_path: Path, membership: str, files: dict[str, str], lost: int
) -> None:
    """The time lost to a quota is that of the group, or of the one above it that has the quota."""
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "self").write_text(membership)
    assert throttled_ns(tmp_path / "self", root) == lost


def test_nothing_to_read(tmp_path: Path) -> None:
    """Where there are no control groups nothing was lost."""
    assert throttled_ns(tmp_path / "none", tmp_path) == 0
