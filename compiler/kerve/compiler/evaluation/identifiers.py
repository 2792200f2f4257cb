"""Parsing of losses and metrics given as options: `[OUTPUT=]NAME[(argument, key=value, ...)]`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Identifier", "parse"]

_PREFIX = re.compile(r"\s*([^()=\s]+)\s*=\s*(?=[A-Za-z_])(.+)", re.DOTALL)


@dataclass(frozen=True)
class Identifier:
    """A built-in or custom loss or metric, by name."""

    text: str
    name: str
    #: Empty for every output, or the only one.
    output: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def called(self) -> bool:
        """Whether arguments were given."""
        return bool(self.args or self.kwargs) or "(" in self.text


def parse(text: str) -> Identifier:
    """Parse one; arguments are Python literals, and nothing is evaluated. Raises `ValueError`."""
    match = _PREFIX.fullmatch(text)
    output, call = (match[1], match[2]) if match else ("", text)
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return Identifier(text, tree.id, output, (), {})
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError("neither a name nor a call of one")  # reported with the same message
        args = tuple(ast.literal_eval(each) for each in tree.args)
        kwargs = {str(each.arg): ast.literal_eval(each.value) for each in tree.keywords if each.arg}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{text!r}: expected NAME or NAME(key=value, ...) with plain values, after OUTPUT= where the "
            f"model has several outputs; for example 'AUC(curve=\"PR\")' ({error})"
        ) from error
    return Identifier(text, tree.func.id, output, args, kwargs)
