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
    label: str = cli.option("stable", help="The label; clients can request it instead of a version.")
    require: tuple[str, ...] = cli.option(
        (),
        help="Condition on the version's last evaluation; may be given several times. Compares a metric with "
        "a number (`accuracy >= 0.97`), or with the version that has a label now "
        "(`loss <= stable.loss * 1.01`).",
    )


@cli.command(example='kerve promote digits 2 --label stable --require "accuracy >= 0.97"')
def command(options: Options) -> None:
    """Move a label to a version, if its last evaluation meets every requirement.

    Exit code 1 if it does not; the label is then not moved.
    """
    with options.connect() as client:
        decision = client.promote(options.name, options.version, options.label, options.require)
    if decision.requirements:
        rows = [(each.text, "yes" if each.holds else "no", each.reason) for each in decision.requirements]
        print_table(f"{options.name}, version {options.version}", ("requirement", "met", "reason"), rows)
    if not decision.promoted:
        raise click.ClickException(f"the label {options.label!r} was not moved")
    click.echo(f"{options.name}: {options.label} is version {options.version} now")
