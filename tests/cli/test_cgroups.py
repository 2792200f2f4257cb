"""What control groups leave a process of the machine."""

from pathlib import Path

import pytest

from kerve.cli.cgroups import memory_limit


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no cgroup"),
        pytest.param({"memory.max": "max\n"}, None, id="no limit"),
        pytest.param({"memory.max": "1000\n"}, 1000, id="a container's"),
        pytest.param({"system.slice/kerve.service/memory.max": "1000\n"}, 1000, id="a unit's"),
        pytest.param(
            {"system.slice/memory.max": "900\n", "system.slice/kerve.service/memory.max": "1000\n"},
            900,
            id="the slice's",
        ),
        pytest.param({"system.slice/other.service/memory.max": "900\n"}, None, id="a neighbour's"),
        pytest.param({"memory/memory.limit_in_bytes": "1000\n"}, 1000, id="version 1"),
        pytest.param({"memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n"}, None, id="version 1, none"),
    ],
)
def test_memory_is_the_smallest_limit(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text("0::/system.slice/kerve.service\n")
    assert memory_limit(tmp_path, tmp_path / "own") == expected
