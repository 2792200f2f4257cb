"""What a person sees of a compile: live on a terminal, next to nothing in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from kerve.compiler.commands.verify import error_table
from kerve.compiler.progress import Event, stage, steps

_COMPILE = """
import time
from kerve.compiler.progress import Event, stage, steps
from kerve.compiler.terminal import terminal
with terminal() as listener:
    with stage("load", listener) as progress:
        progress.detail = "keras [3.15], a/path.keras"
    with stage("verify", listener):
        for _ in steps(range(4), 4, "data sets"):
            time.sleep(0.25)
        listener(Event("Layout", "note", detail="2 nodes [x]"))
    try:
        with stage("package", listener):
            raise OSError
    except OSError:
        pass
"""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(**environment: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _COMPILE],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "100", **environment},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_time_and_how_far_a_stage_is() -> None:
    shown = on_a_terminal(TERM="xterm-256color")
    assert _CONTROL.search(shown)
    lines = [line.strip() for line in re.split(r"[\r\n]+", _CONTROL.sub("", shown))]
    assert any(re.match(r"\S verify +0:00:0\d ━+╺?━* ?[23]/4 data sets", line) for line in lines), lines
    assert any(re.match(r"✓ load +\d\.\d\d s  keras \[3\.15\], a/path\.keras", line) for line in lines)
    assert "Layout: 2 nodes [x]" in lines
    assert any(re.match(r"✗ package +\d\.\d\d s", line) for line in lines)


def test_a_dumb_terminal_shows_one_line_for_each_stage() -> None:
    shown = on_a_terminal(TERM="dumb")
    assert not re.search(r"[^\n\r -~]", shown)
    assert [re.sub(r"\d+\.\d\d", "N", line) for line in shown.splitlines()] == [
        "load      N s  keras [N], a/path.keras",
        "  Layout: 2 nodes [x]",
        "verify    N s",
        "package   failed N s",
    ]


def test_a_pipe_gets_only_what_is_to_be_known() -> None:
    piped = subprocess.run(
        [sys.executable, "-c", _COMPILE],
        capture_output=True,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1"},
        check=True,
        timeout=60,
    )
    assert (piped.stdout, piped.stderr) == ("", "  Layout: 2 nodes [x]\n")


def test_steps_are_told_of_the_stage_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerve.compiler.progress._PAUSE_SECONDS", 0.0)
    events: list[Event] = []
    assert list(steps("ab", 2, "letters")) == ["a", "b"]  # none is
    with stage("outer", events.append):
        assert list(steps("ab", 2, "letters")) == ["a", "b"]
    assert [(event.stage, event.done, event.total) for event in events if event.state == "step"] == [
        ("outer", 0, 2),
        ("outer", 1, 2),
    ]


def test_the_errors_of_a_verification_fit_into_80_columns() -> None:
    check = {
        "output": "digits",
        "data": "seeded",
        "batch_size": 360,
        "dimensions": {},
        "max_abs_error": 1e-7,
        "mean_abs_error": 1e-8,
        "max_rel_error": 1e-6,
        "nan_mismatches": 0,
        "problem": "",
        "unequal": 0,
        "passed": True,
    }
    console = Console(width=80)
    with console.capture() as shown:
        console.print(error_table([check]))
    assert "…" not in shown.get()
    assert re.search(r"digits +seeded +batch 360 +1.00e-07 +1.00e-08 +1.00e-06 +0 +0", shown.get())
