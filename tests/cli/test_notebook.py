"""Progress in a notebook's cell: stages of a compile, rows of an evaluation, and nothing elsewhere."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kerve.cli import notebook
from kerve.runtime.evaluation.client import Evaluated
from kerve.runtime.evaluation.notebook import watched


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What IPython is told to show, in a kernel."""
    shown: list[str] = []
    display = SimpleNamespace(
        HTML=str,
        display=lambda html, display_id: shown.append(html) or SimpleNamespace(update=shown.append),  # type: ignore[func-returns-value]
    )
    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shown


def evaluated(rows: int, *, final: bool) -> Evaluated:
    return Evaluated("digits", "2", rows, 1.0, 1.0, {"loss": 0.25}, {}, final)


def test_an_evaluation_shows_its_rows_and_numbers(cell: list[str]) -> None:
    interval, progress = watched({"x": np.zeros((40, 2))}, 0.0, None)
    assert interval > 0
    assert progress is not None
    progress(evaluated(10, final=False))
    assert 'value="10" max="40"' in cell[-1]
    progress(evaluated(40, final=True))
    assert 'value="40" max="40"' in cell[-1]
    assert "digits, version 2" in cell[-1]
    assert "loss 0.25" in cell[-1]


def test_whoever_listens_himself_is_not_disturbed(cell: list[str]) -> None:
    listener: Any = lambda _: None  # noqa: E731
    assert watched(np.zeros(3), 0.1, listener) == (0.1, listener)
    assert cell == []


def test_a_bar_without_an_end_has_no_value_and_text_is_escaped() -> None:
    assert (
        notebook.bar("<b>", 3, None, "a & b") == "<div><b>&lt;b&gt;</b> <progress></progress> a &amp; b</div>"
    )


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "IPython in a terminal"])
def test_elsewhere_nothing_is_shown(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert notebook.cell() is None
    monkeypatch.delitem(sys.modules, "IPython")
    assert notebook.cell() is None
    assert watched(np.zeros(3), 0.0, None) == (0.0, None)
