"""CPUs from affinity and cgroup."""

import os
from pathlib import Path

import pytest

from kerve.runtime.cpus import available_cpus

AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, AFFINITY, id="no cgroup"),
        pytest.param({"cpu.max": "max 100000\n"}, AFFINITY, id="no limit"),
        pytest.param({"cpu.max": "50000 100000\n"}, 1, id="half a CPU"),
        pytest.param({"cpu.max": "150000 100000\n"}, min(2, AFFINITY), id="one and a half"),
        pytest.param({"cpu.max": "99900000 100000\n"}, AFFINITY, id="more than there are"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AFFINITY, id="v1, none"
        ),
        pytest.param({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1, id="v1, one"),
    ],
)
def test_cpus_are_the_smaller_of_affinity_and_quota(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"system.slice/kerve.service/cpu.max": "50000 100000"}, 1, id="its own"),
        pytest.param({"system.slice/cpu.max": "50000 100000"}, 1, id="the slice's"),
        pytest.param({"system.slice/other.service/cpu.max": "50000 100000"}, AFFINITY, id="a neighbour's"),
    ],
)
def test_a_units_quota_counts(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text("1:cpu:/\n0::/system.slice/kerve.service\n")
    assert available_cpus(tmp_path, tmp_path / "own") == expected
