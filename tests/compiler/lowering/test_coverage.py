"""The table of what is converted says what the compiler does."""

from __future__ import annotations

from pathlib import Path

from kerve.compiler.lowering import coverage

_PAGE = Path(__file__).parents[3] / "docs" / "coverage.md"


def test_the_page_is_what_make_reference_writes() -> None:
    assert _PAGE.read_text(encoding="utf-8") == coverage.table(), "run `make reference`"
