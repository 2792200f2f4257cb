"""Parses protobuf's text format without a schema: values by field name."""

from typing import TypeAlias

from google.protobuf import text_format

from kerve.runtime.errors import InvalidArgumentError

__all__ = ["Message", "Value", "read"]

Value: TypeAlias = "str | int | float | bool | Message"
# The values of each field in order, by field name.
Message = dict[str, list[Value]]

WORDS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
CLOSING = {"{": "}", "<": ">"}


def read(text: str) -> Message:
    """Return the message in a text; raises InvalidArgumentError if it is not in text format."""
    tokenizer = text_format.Tokenizer(text.splitlines())
    try:
        found = fields(tokenizer, "")
    except (text_format.ParseError, RecursionError) as error:
        raise InvalidArgumentError(f"expected protobuf's text format: {error}") from error
    return found


def fields(tokenizer: text_format.Tokenizer, closing: str) -> Message:
    """Return the fields up to a closing bracket, or to the end of the text."""
    found: Message = {}
    while not (tokenizer.TryConsume(closing) if closing else tokenizer.AtEnd()):
        values = found.setdefault(tokenizer.ConsumeIdentifier(), [])
        colon = tokenizer.TryConsume(":")
        if tokenizer.TryConsume("["):
            while not tokenizer.TryConsume("]"):
                values.append(value(tokenizer, bare=colon))
                tokenizer.TryConsume(",")
        else:
            values.append(value(tokenizer, bare=colon))
        if not tokenizer.TryConsume(","):
            tokenizer.TryConsume(";")
    return found


def value(tokenizer: text_format.Tokenizer, *, bare: bool) -> Value:
    """Return one value; `bare`: it may be a scalar."""
    for opening, closing in CLOSING.items():
        if tokenizer.TryConsume(opening):
            return fields(tokenizer, closing)
    token = tokenizer.token
    if not bare or not token:
        raise text_format.ParseError(f"expected a value, got {token or 'the end'!r}")
    if token[0] in "\"'":
        return str(tokenizer.ConsumeString())
    tokenizer.NextToken()
    if token in WORDS:
        return WORDS[token]
    for kind in (lambda text: int(text, 0), float):
        try:
            return kind(token)
        except ValueError:
            continue
    return str(token)
