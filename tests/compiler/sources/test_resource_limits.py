"""A process that opens a file cannot take the machine with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kerve.compiler.sources import resource_limits

_LIMITED = (
    "from kerve.compiler.sources import resource_limits; "
    "resource_limits.enforce(memory=1 << 28, cpu_seconds={seconds}); {code}"
)


def _run(code: str, seconds: int = 60) -> subprocess.CompletedProcess[str]:
    script = _LIMITED.format(seconds=seconds, code=code)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_memory_beyond_the_limit_is_refused() -> None:
    assert "MemoryError" in _run("x = bytearray(1 << 29)").stderr


def test_memory_below_the_limit_is_given() -> None:
    assert _run("x = bytearray(1 << 26)").returncode == 0


def test_a_loop_without_end_is_ended() -> None:
    assert _run("\nwhile True: pass", seconds=1).returncode < 0


def test_a_limit_is_never_raised() -> None:
    assert _run("resource_limits.enforce(memory=1 << 40); x = bytearray(1 << 29)").returncode == 1


def test_the_machine_has_memory() -> None:
    assert resource_limits.machine_memory() > 1 << 28


def test_memory_is_no_more_than_the_cgroups_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_limits, "memory_limit", lambda: 1 << 30)
    assert resource_limits.machine_memory() == 1 << 30
