"""Tables for people."""

import pytest
from rich.console import Console

from kerve.cli import tables


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
