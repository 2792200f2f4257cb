"""`kerve promote`."""

from dataclasses import dataclass

import click

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.commands.connection import Connection

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """The options of `kerve promote`."""

    name: str = cli.argument(help="Name of the served model.")
    version: str = cli.argument(help="Version to give the label to.")
    label: str = cli.option("stable", help="The label; clients ask for it as they ask for a version.")
    require: tuple[str, ...] = cli.option(
        (),
        help="What the version's last evaluation must show, several times for several requirements: a metric "
        "against a number (`accuracy >= 0.97`) or against the version that has a label now "
        "(`loss <= stable.loss * 1.01`).",
    )


@cli.command(example='kerve promote digits 2 --label stable --require "accuracy >= 0.97"')
def command(options: Options) -> None:
    """Move a label to a version, if its last evaluation meets every requirement.

    Exit code 1 when it does not; the label then stays where it is.
    """
    with options.connect() as client:
        decision = client.promote(options.name, options.version, options.label, options.require)
    if decision.requirements:
        rows = [(each.text, "yes" if each.holds else "no", each.reason) for each in decision.requirements]
        print_table(f"{options.name}, version {options.version}", ("requirement", "holds", "why"), rows)
    if not decision.promoted:
        raise click.ClickException(f"the label {options.label!r} stays where it is")
    click.echo(f"{options.name}: {options.label} is version {options.version} now")
