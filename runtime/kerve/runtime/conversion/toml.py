"""Writes TOML: tables, lists, strings, numbers and booleans."""

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["write"]


def write(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return a table as TOML: values first, then subtables under their headers."""
    values = {name: each for name, each in table.items() if not isinstance(each, Mapping)}
    lines = [f"{key(name)} = {inline(each)}" for name, each in values.items()]
    parts = ["\n".join(lines)] if lines else []
    for name, each in table.items():
        if isinstance(each, Mapping):
            inner = (*path, name)
            body = write(each, inner)
            header = f"[{'.'.join(map(key, inner))}]"
            # A table that contains only tables needs no header.
            alone = bool(each) and all(isinstance(value, Mapping) for value in each.values())
            parts.append(body if alone else f"{header}\n{body}".rstrip())
    return "\n\n".join(parts)


def inline(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key(name)} = {inline(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value).replace("Infinity", "inf")


def key(name: str) -> str:
    """Return a name as a key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def quoted(text: str) -> str:
    """Return a quoted string: as in JSON, except for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
