"""`kerve evaluate`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.commands.connection import Connection
from kerve.runtime.data import Rows, open_files
from kerve.runtime.datatypes import Array
from kerve.runtime.evaluation.client import Evaluated

__all__ = ["command"]

# Seconds between running results on a terminal.
INTERVAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """What `kerve evaluate` takes."""

    name: str = cli.argument(help="Name of the served model.")
    data: tuple[Path, ...] = cli.option(
        help=".npz, .npy, .csv, Parquet or TFRecord file, several times for several files: columns named as "
        "the inputs (or `x`), as the outputs for labels (or `y`), and `sample_weight` if there are weights.",
        type=cli.EXISTING_FILE,
    )
    version: tuple[str, ...] = cli.option((), help="Version to evaluate, several times for several versions.")
    metric: tuple[str, ...] = cli.option((), help="Metric to compute; by default all that the model has.")
    batch_size: int = cli.option(
        32,
        type=click.IntRange(min=1),
        help="As in model.evaluate(): the rows of a step, on which some losses depend (a sum, a mask).",
    )
    json: bool = cli.option(False, help="Print one JSON object instead of a table.")
    timeout: float | None = cli.option(None, help="Seconds to wait for the results.")


@cli.command(example="kerve evaluate digits --data test.npz --version 3 --version 4")
def command(options: Options) -> None:
    """Compute a served model's loss and metrics on labelled data, as model.evaluate() does."""
    source = open_files(options.data)
    with options.connect() as client:
        info = client.metadata(options.name, version=next(iter(options.version), ""), timeout=options.timeout)
        rows = Rows(source, info.signature, labelled=True)
        with Bar(len(rows) * max(1, len(options.version))) as bar:
            results = client.evaluate_versions(
                options.name,
                rows,
                versions=options.version,
                metrics=options.metric,
                batch_size=options.batch_size,
                interval=INTERVAL if bar.shown else 0.0,
                progress=bar.show,
                timeout=options.timeout,
            )
    if options.json:
        objects = [as_json(each) for each in results]
        click.echo(json.dumps(objects[0] if len(objects) == 1 else objects))
        return
    print_results(results)


class Bar:
    """Progress on a terminal, with the numbers so far, as Keras shows it; nothing in a pipe."""

    def __init__(self, rows: int) -> None:
        self.shown = sys.stderr.isatty()
        self._rows = rows
        self._done: dict[str, int] = {}
        self._bar: Any = None

    def __enter__(self) -> "Bar":
        if self.shown:
            self._bar = click.progressbar(length=self._rows, file=sys.stderr, item_show_func=str)
            self._bar.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*details)

    def show(self, so_far: Evaluated) -> None:
        """Advance."""
        step = so_far.rows - self._done.get(so_far.version, 0)
        self._done[so_far.version] = so_far.rows
        if self._bar is not None:
            self._bar.update(
                step, " - ".join(f"{name}: {show(value)}" for name, value in so_far.results.items())
            )


def print_results(results: Sequence[Evaluated]) -> None:
    """Print the numbers, a column for each version, and how long it took."""
    names = list(dict.fromkeys(name for each in results for name in each.results))
    rows = [
        (name, *(show(each.results[name]) if name in each.results else "" for each in results))
        for name in names
    ]
    rows += [
        ("rows", *(str(each.rows) for each in results)),
        ("rows/s", *(f"{each.rows_per_second:.0f}" for each in results)),
        ("batch p50, ms", *(f"{each.latency['p50'] * 1e3:.2f}" for each in results)),
        ("batch p99, ms", *(f"{each.latency['p99'] * 1e3:.2f}" for each in results)),
    ]
    heads = tuple(f"version {each.version}" for each in results)
    print_table(f"evaluation of {results[0].model}", ("metric", *heads), rows)


def show(value: float | Array) -> str:
    """Return a number as Keras prints it; an array in brackets."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{value:.4e}"
    return np.array2string(value, precision=4, separator=", ", threshold=6)


def as_json(each: Evaluated) -> dict[str, Any]:
    """Return an evaluation as plain data."""
    return {
        "model": each.model,
        "version": each.version,
        "rows": each.rows,
        "seconds": each.seconds,
        "rows_per_second": each.rows_per_second,
        "latency": each.latency,
        "results": {
            name: value if isinstance(value, float) else value.tolist()
            for name, value in each.results.items()
        },
    }
