"""Text for terminals and logs."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return a text of one line that controls no terminal: what cannot be printed is escaped as in Python."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
