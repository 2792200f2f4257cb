"""What a server takes for its limits where it is told none."""

import os
from pathlib import Path

import pytest

from kerve_wire import _options
from kerve_wire._options import QueueOptions, ServerOptions, _memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, MACHINE, id="no cgroup"),
        pytest.param({"memory.max": "max\n"}, MACHINE, id="no limit"),
        pytest.param({"memory.max": "1000\n"}, 1000, id="a container's"),
        pytest.param({"system.slice/kerve.service/memory.max": "1000\n"}, 1000, id="a unit's"),
        pytest.param(
            {"system.slice/memory.max": "900\n", "system.slice/kerve.service/memory.max": "1000\n"},
            900,
            id="the slice's",
        ),
        pytest.param({"memory/memory.limit_in_bytes": "1000\n"}, 1000, id="version 1"),
    ],
)
def test_memory_is_the_smallest_limit(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text("0::/system.slice/kerve.service\n")
    assert _memory(tmp_path, tmp_path / "own") == expected


def test_what_waits_is_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of a GiB in a container of two leaves no room for a second model's."""
    monkeypatch.setattr(_options, "_memory", lambda: 2 << 30)
    assert QueueOptions().fields()["max_queue_bytes"] == 256 << 20
    assert QueueOptions(max_queue_bytes=7).fields()["max_queue_bytes"] == 7
    assert ServerOptions().fields()["max_buffered_bytes"] == 1 << 30
    monkeypatch.setattr(_options, "_memory", lambda: 64 << 30)
    assert QueueOptions().fields()["max_queue_bytes"] == 1 << 30
