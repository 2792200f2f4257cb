"""Tables as HTML."""

from kerve.cli.html import captioned, table


def test_text_is_escaped() -> None:
    shown = captioned("<a>", table(("", "<b>"), [("<c>", "&")]), note="<d>")
    for escaped in ("&lt;a&gt;", "&lt;b&gt;", "&lt;c&gt;", "<td>&amp;</td>", "&lt;d&gt;"):
        assert escaped in shown
