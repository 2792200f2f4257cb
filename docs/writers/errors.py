"""The page of what can go wrong: exit codes of the commands, status codes of the services."""

import inspect
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from kerve.compiler import errors as compiling
from kerve.runtime import errors as serving
from kerve.runtime.data import DataError
from kerve.runtime.http.server import STATUS
from writers.markdown import code, plain, table

__all__ = ["page"]

_HEAD = """# Errors

Written by `make reference` from the exceptions themselves; a test compares it. A command says what was expected, what
came and what to do in one line on standard error; a call says it in the message of its status.
"""

#: Exit codes that no exception of ours stands for (`kerve.cli.main`).
_GENERAL = {
    0: "Done.",
    1: "A file cannot be read or written, or a condition does not hold (`promote`, a drain that took too long).",
    2: "Wrong usage.",
    130: "Interrupted.",
}

_STATUS_COLUMNS = ("gRPC status", "number", "HTTP status", "raised by `Client`", "when")


def page() -> str:
    """Return the page, in Markdown."""
    exits = table(("code", "raised from Python", "when"), _exit_codes())
    statuses = table(_STATUS_COLUMNS, _status_codes())
    return "\n".join([_HEAD, f"## Exit codes\n\n{exits}", f"## Status codes\n\n{statuses}"])


def _exit_codes() -> Iterator[tuple[str, str, str]]:
    """Yield each exit code, with the exceptions that end a command with it."""
    raised: dict[int, list[type[Exception]]] = defaultdict(list)
    public = (vars(module)[name] for module in (compiling, serving) for name in module.__all__)
    errors: list[Any] = [*filter(inspect.isclass, public), DataError]
    for error in errors:
        if "exit_code" in vars(error):  # others end a command as their parent does
            raised[error.exit_code].append(error)
    for number in sorted(_GENERAL.keys() | raised.keys()):
        meanings = [_GENERAL.get(number, ""), *(_first(each) for each in raised[number])]
        names = ", ".join(code(each.__name__) for each in raised[number])
        yield str(number), names, " ".join(each for each in meanings if each)


def _status_codes() -> Iterator[tuple[str, str, str, str, str]]:
    for status, error in sorted(serving.BY_CODE.items()):
        http = str(STATUS.get(status, 500))
        yield code(status.name), str(status.value), http, code(error.__name__), _first(error)


def _first(error: type[Exception]) -> str:
    """Return what an exception is, without what there is to say of its attributes."""
    return plain((error.__doc__ or "").partition("\n\n")[0])
