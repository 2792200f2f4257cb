"""A compile that is ended, or that cannot write, leaves nothing behind and says so in one sentence."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one megabyte, as an archive and beside it as HDF5."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model = keras.Sequential([keras.Input((64,), name="x"), keras.layers.Dense(4096, name="y")])
    model.save(path)
    model.save(path.with_suffix(".h5"))
    return path


def _compile(
    model: Path, repository: Path, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    def prepare() -> None:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # what a shell runs in the background ignores it otherwise
        if before is not None:
            before()

    run = "from kerve.cli.main import main; main()"
    arguments = ["compile", str(model), "--repository", str(repository), "--name", "m"]
    return subprocess.Popen(
        [sys.executable, "-c", run, *arguments], stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_compile_that_is_ended_leaves_nothing(number: signal.Signals, model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    with _compile(model, repository) as process:
        while not list(repository.glob("m/.compiling-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 128 + number
    assert not repository.exists()


def test_a_compile_that_is_killed_takes_its_child_with_it(model: Path, tmp_path: Path) -> None:
    """Nobody can act on SIGKILL: the child that does the work sees that its parent is gone."""
    repository = tmp_path / "models"
    with _compile(model, repository) as process:
        while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    (child,) = children
    while _runs(child):
        time.sleep(0.01)


def test_what_a_compile_left_that_was_killed_with_its_child_goes_with_the_next(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of a container, or where the machine has no memory left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with _compile(model, tmp_path / "models", before=os.setpgrp) as process:
        while not (left := list(temporary.glob("kerve.*"))) or not any(left[0].iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert left[0].is_dir()
    os.utime(left[0], (0, 0))
    (tmp_path / "none.keras").write_bytes(b"no model")
    with _compile(tmp_path / "none.keras", tmp_path / "models") as process:
        process.communicate()
    assert process.returncode == 3
    assert not list(temporary.iterdir())


def _runs(pid: str) -> bool:
    """Whether a process is there, and more than the exit code that nobody asked for."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("suffix", "code", "problem"), [
    (".keras", 3, "the temporary folder .* cannot be written to .*TMPDIR"),  # where archives are unpacked
    (".h5", 1, "cannot write to the repository .*; nothing was published"),
])  # fmt: skip
def test_a_file_system_that_takes_no_more_is_told_in_one_sentence(
    suffix: str, code: int, problem: str, model: Path, tmp_path: Path
) -> None:
    limit = 1 << 19
    repository = tmp_path / "models"
    with _compile(
        model.with_suffix(suffix),
        repository,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ) as process:
        _, said = process.communicate()
    assert process.returncode == code
    assert re.match(f"error: .*{problem}", said.splitlines()[-1])
    assert "Traceback" not in said
    assert not repository.exists()
