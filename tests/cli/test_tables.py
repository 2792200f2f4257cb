"""Tables for people."""

import pytest
from rich.console import Console

from kerve.cli import tables


def test_text_controls_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table("title", ["name"], [["\x1b]0;owned\x07"], ["\u202egnp"], ["über\nzwei"]])
    shown = capsys.readouterr().out
    assert r"\x1b]0;owned\x07" in shown
    assert r"\u202egnp" in shown
    assert not {*"\x1b\x07\u202e"} & {*shown}
    assert "über " in shown
    assert "│ zwei " in shown


@pytest.mark.parametrize("width", [20, tables.PIPE_WIDTH])
def test_what_is_wider_than_the_table_goes_on_below(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "console", Console(width=width))
    path = "models/" + "deep/" * 60 + "[1]"
    tables.print_table("[title]", ("[head]", "value"), [("path", path)])
    shown = capsys.readouterr().out
    assert "[title]" in shown
    assert "[head]" in shown
    cells = [line.split("│")[2].strip() for line in shown.splitlines() if line.startswith("│")]
    assert "".join(cells) == path
