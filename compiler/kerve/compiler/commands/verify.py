"""`kerve verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kerve.cli import options as cli
from kerve.cli.tables import console
from kerve.compiler.options import VerifyOptions
from kerve.compiler.terminal import terminal
from kerve.compiler.verify import verify_model

__all__ = ["command", "error_table"]


@dataclass(frozen=True, kw_only=True)
class Options(VerifyOptions):
    """What `kerve verify` takes."""

    source: Path = cli.argument(help="The Keras model that the artifact was compiled from.")
    artifact: Path = cli.argument(type=cli.EXISTING_FOLDER, help="Folder of the compiled version.")


@cli.command(example="kerve verify digits.keras models/digits/1 --data test.npz")
def command(options: Options) -> None:
    """Compare an artifact's results with its source's, on seeded data and on yours.

    Prints the errors of every output. Exit code 5 if the artifact differs from its source, with the name of
    the first Keras layer that differs, or if its files were changed since. An artifact in a reduced precision
    is compared on the inputs stored in it; exit code 6 if it exceeds its budget on your data.
    """
    with terminal() as listener:
        comparison = verify_model(
            options.source, options.artifact, options=VerifyOptions.of(options), listener=listener
        )
    console.print(error_table(comparison.checks))
    if comparison.losses:
        console.print(_loss_table(comparison.losses))
    for remark in comparison.remarks:
        console.print(Text(remark))
    comparison.require_equal()


def _loss_table(losses: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("loss due to the reduced precision")
    for column in ("rows", "drop", "allowed"):
        table.add_column(column, justify="right")
    for loss in losses:
        cells = (Text(loss["text"]), str(loss["rows"]), f"{loss['drop']:.3g}", f"{loss['allowed']:g}")
        table.add_row(*cells, style=None if loss["passed"] else "red")
    return table


def error_table(checks: Sequence[Mapping[str, Any]]) -> Table:
    """Return the errors of each output on each data set."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)  # fits into 80 columns
    for column in ("output", "data", "sizes"):
        table.add_column(column)
    for column in ("largest error", "mean", "relative", "NaN", "beyond tolerance"):
        table.add_column(column, justify="right")
    for check in checks:
        sizes = {"batch": check["batch_size"], **check["dimensions"]}
        table.add_row(
            Text(check["output"]),
            Text(check["data"]),
            Text(", ".join(f"{name} {size}" for name, size in sizes.items())),
            f"{check['max_abs_error']:.2e}",
            f"{check['mean_abs_error']:.2e}",
            f"{check['max_rel_error']:.2e}",
            str(check["nan_mismatches"]),
            Text(check["problem"] or str(check["unequal"])),
            style=None if check["passed"] else "red",
        )
    return table
