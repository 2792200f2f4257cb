"""The page of the commands: what click knows of each."""

import inspect

import click

from kerve.cli.main import GROUP, SUBCOMMANDS
from writers.markdown import code, plain, table

__all__ = ["page"]

_HEAD = """# Commands

Written by `make reference` from the commands themselves; a test compares it.

An option is given on the command line, by its environment variable, or as a key of the table named after the command
in the TOML file that `--config` or `KERVE_CONFIG` names: `--grpc-port 9000`, `KERVE_GRPC_PORT=9000`, or `grpc-port = 9000`
in the table `[serve]`. The first of these that is there counts, in this order. [Exit codes](errors.md#exit-codes) are the
same everywhere.
"""


def page() -> str:
    """Return the page, in Markdown."""
    context = click.Context(GROUP)
    found = ((name, GROUP.get_command(context, name)) for name in SUBCOMMANDS)
    return "\n".join([_HEAD, *(_section(name, command) for name, command in found if command is not None)])


def _section(name: str, command: click.Command) -> str:
    paragraphs = "\n\n".join(plain(each) for each in inspect.cleandoc(command.help or "").split("\n\n"))
    example = inspect.cleandoc((command.epilog or "").partition("Example:")[2])
    context = click.Context(command)
    arguments_first = sorted(command.params, key=lambda each: isinstance(each, click.Option))
    rows = [_row(parameter, context) for parameter in arguments_first]
    columns = ("argument or option", "default", "what it is")
    return f"## kerve {name}\n\n{paragraphs}\n\n```\n{example}\n```\n\n{table(columns, rows)}"


def _row(parameter: click.Parameter, context: click.Context) -> tuple[str, str, str]:
    """Return name and environment variable, default and meaning of a parameter, as its help has them."""
    default = "required" if parameter.required else ""
    if isinstance(parameter, click.Argument):
        return code(parameter.make_metavar(context)), default, plain(parameter.help or "")
    assert isinstance(parameter, click.Option)
    record, extra = parameter.get_help_record(context), parameter.get_help_extra(context)
    assert record is not None
    default = default or code(extra.get("default", ""))
    meaning = plain(parameter.help or "")
    if bounds := extra.get("range"):
        meaning = f"{meaning} {code(bounds)}"
    flag = record[0].replace("|", " | ")  # a line can be broken there
    return f"{code(flag)}<br>{code(parameter.envvar)}", default, meaning
