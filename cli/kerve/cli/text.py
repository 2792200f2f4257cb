"""Text for terminals and logs."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return a text as one line, with unprintable characters escaped as in Python, for terminals and logs."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
