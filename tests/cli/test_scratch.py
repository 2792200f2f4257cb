"""The folder of a process, and what a killed one leaves."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kerve.cli import scratch
from kerve.cli.scratch import Scratch

HOLD = "from kerve.cli.scratch import Scratch; held = Scratch(); print(held.path, flush=True); input()"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "YOUNG", -1)
    return tmp_path


def test_what_a_killed_process_left_goes_and_what_a_live_one_has_stays(temporary: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        (held / "grpc").touch()
        (temporary / "kerve-else").mkdir()
        Scratch().close()
        assert held.is_dir()
        process.send_signal(signal.SIGKILL)
    Scratch().close()
    assert [each.name for each in temporary.iterdir()] == ["kerve-else"]


def test_a_link_and_a_young_folder_stay(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "else").mkdir()
    (temporary / "kerve.link").symlink_to(temporary / "else")
    monkeypatch.setattr(scratch, "YOUNG", 60)
    (temporary / "kerve.young").mkdir()
    Scratch().close()
    assert sorted(each.name for each in temporary.iterdir()) == ["else", "kerve.link", "kerve.young"]


def test_a_folder_to_which_nobody_refers_goes(temporary: Path) -> None:
    kept, dropped = Scratch(), Scratch()
    del dropped
    assert [*temporary.iterdir()] == [kept.path]
    kept.close()
    kept.close()
    assert not [*temporary.iterdir()]
