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


def test_columns_are_rows_where_the_words_of_the_header_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "console", Console(width=40))
    columns = ("model", "requests", "failed requests", "rows/batch")
    tables.print_table("title", columns, [(f"m{row}", str(row), "0", "1.0") for row in range(7)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line[:1] == "│"]
    values = {name: [cell for first, *rest in cells if first == name for cell in rest] for name in columns}
    assert values["requests"] == [str(row) for row in range(7)]
    assert values["rows/batch"] == ["1.0"] * 7
    headers = [line.strip("┃").split("┃") for line in lines if line[:1] == "┃"]
    assert len(headers) == 3
    assert [cell.strip() for first, *rest in headers for cell in rest] == [f"m{row}" for row in range(7)]
    assert all(first.strip() == "model" for first, *_ in headers)
