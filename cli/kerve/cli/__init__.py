"""The `kerve` command: one table of subcommands, each imported only when called."""

from kerve.cli.main import main

__all__ = ["main"]
