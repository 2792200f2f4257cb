"""Which pages are written from code, and by what; those of the contracts come from `make proto`."""

from collections.abc import Callable, Mapping

from kerve.compiler.lowering import coverage
from writers import commands, configuration, errors

__all__ = ["PAGES"]

#: By their path below docs/.
PAGES: Mapping[str, Callable[[], str]] = {
    "coverage.md": coverage.table,
    "reference/commands.md": commands.page,
    "reference/configuration.md": configuration.page,
    "reference/errors.md": errors.page,
}
