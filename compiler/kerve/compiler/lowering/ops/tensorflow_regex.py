"""TensorFlow's regular expressions.

ONNX has an operator that matches regular expressions, but none that replaces matches. Replacement is
supported for patterns that match a literal text or single characters: custom standardization nearly always
replaces a list of characters, all characters not in a list, or one text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from re import _constants as constants  # type: ignore[attr-defined]  # node types of re's parser
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.layers.characters import characters, strings
from kerve.compiler.lowering.layers.encoding import label
from kerve.compiler.lowering.layers.text import joined
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.tensorflow_strings import (
    flatten_texts,
    replaced,
    restore_layout,
    separated,
    text_of,
)
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.tracing import UntraceableError

__all__ = ["HANDLERS"]

HANDLERS = Handlers()

_ASCII = range(1, 128)

#: RE2's references to the match in a rewrite: to all of it, and to a group around all of it.
_BACKREFERENCE = re.compile(r"\\[01]")


@HANDLERS.register("tensorflow.StaticRegexReplace")
def regex_replace(g: Lowering, attributes: Mapping[str, Any], texts: ir.Value) -> ir.Value:
    """Replace the characters that a pattern lists, or all others, or one text."""
    pattern, rewrite = text_of(attributes["pattern"]), text_of(attributes["rewrite"])
    parsed, plain = _parsed(pattern), _BACKREFERENCE.sub("", rewrite)
    if attributes.get("replace_global", 1) and "\\" not in plain:
        listed, others = _class(pattern, parsed, removed=not rewrite)
        if listed and not others:
            return replaced(g, texts, {each: _rewritten(rewrite, each) for each in listed})
        if listed and plain == rewrite:
            return _kept(g, texts, listed, rewrite)
        if literal := _literal(pattern, parsed):
            return _swapped(g, texts, literal, _rewritten(rewrite, literal))
    raise UntraceableError(
        f"ONNX cannot replace what matches {pattern!r}, only a fixed text or a set of characters, such as "
        "[,!?] or [^a-z]"
    )


@HANDLERS.register("tensorflow.StaticRegexFullMatch")
def regex_full_match(g: Lowering, attributes: Mapping[str, Any], texts: ir.Value) -> ir.Value:
    """Whether a pattern matches the whole text; ONNX uses RE2's syntax, too."""
    return g.op.RegexFullMatch(texts, pattern=text_of(attributes["pattern"]))


def _rewritten(rewrite: str, match: str) -> str:
    return _BACKREFERENCE.sub(lambda _: match, rewrite)


def _kept(g: Lowering, texts: ir.Value, known: Iterable[str], other: str) -> ir.Value:
    """Replace all characters except `known`."""
    row = flatten_texts(g, texts)
    pieces = characters(g, row)
    is_known = g.op.Equal(label(g, pieces, dict.fromkeys(["", *known], 1), 0), 1)
    chosen = g.op.Where(is_known, pieces, g.constant(np.array(other, object), "other"))
    return restore_layout(g, joined(g, strings(chosen, row)), texts)


def _swapped(g: Lowering, texts: ir.Value, old: str, new: str) -> ir.Value:
    """Replace all occurrences of a text by another: split at the one, join with the other."""
    row = flatten_texts(g, texts)
    pieces, counts = g.ops.StringSplit(row, delimiter=old, _outputs=2)
    pieces = strings(pieces, row)
    if new:
        pieces = separated(g, pieces, new, g.op.Unsqueeze(counts, [1]))
    return restore_layout(g, joined(g, pieces), texts)


def _parsed(pattern: str) -> list[Any]:
    """Return the parsed parts of a pattern, without a group around all of it; [] if it is invalid."""
    try:
        parsed = list(parser.parse(pattern, re.ASCII))
    except re.error:
        return []
    if len(parsed) == 1 and parsed[0][0] is constants.SUBPATTERN and parsed[0][1][1:3] == (0, 0):
        return list(parsed[0][1][3])
    return parsed


def _literal(pattern: str, parsed: list[Any]) -> str:
    """Return the literal text that a pattern matches, "" if it is no literal."""
    plain = all(each[0] is constants.LITERAL for each in parsed) and "(?" not in pattern
    return "".join(chr(each[1]) for each in parsed) if plain else ""


def _class(pattern: str, parsed: list[Any], *, removed: bool) -> tuple[list[str], bool]:
    """Return the single characters that a pattern matches, or (with True) those that it does not match.

    The list is empty if it matches anything else. If matches are `removed`, a trailing +
    makes no difference.
    """
    if removed and len(parsed) == 1 and parsed[0][0] is constants.MAX_REPEAT and parsed[0][1][0] == 1:
        parsed = list(parsed[0][1][2])
    if len(parsed) != 1:
        return [], False
    kind, content = parsed[0]
    if kind in (constants.LITERAL, constants.NOT_LITERAL):
        return [chr(content)], kind is constants.NOT_LITERAL
    if kind is not constants.IN:
        return [], False
    inverse = any(each[0] is constants.CATEGORY and "NOT" in str(each[1]) for each in content)
    others = (content[0][0] is constants.NEGATE) != inverse
    literal = {each[1] for each in content if each[0] is constants.LITERAL}
    ranges = [
        range(low, high + 1) for low, high in (each[1] for each in content if each[0] is constants.RANGE)
    ]
    # Beyond ASCII, only listed characters match, since categories are limited to ASCII.
    beyond = set() if inverse else literal.union(*ranges).difference(_ASCII)
    known = {code for code in _ASCII if bool(re.fullmatch(pattern, chr(code), re.ASCII)) != others}
    return sorted(map(chr, known | beyond)), others
