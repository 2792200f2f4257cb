"""`kerve evaluate`."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.client import Client
from kerve.runtime.commands.engine import Engine
from kerve.runtime.data import Rows, open_files
from kerve.runtime.data.parts import parts_of
from kerve.runtime.data.writing import whole
from kerve.runtime.datatypes import Array
from kerve.runtime.evaluation.client import Compared, Difference, Evaluated
from kerve.runtime.report import Report

__all__ = ["command"]

# Seconds between intermediate results on a terminal.
INTERVAL = 0.5
# Maximum number of rows shown in which versions differ.
SHOWN_ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Options(Engine):
    """The options of `kerve evaluate`."""

    name: str = cli.argument(help="Name of the served model.")
    data: tuple[Path, ...] = cli.option(
        help=".npz, .npy, .csv, Parquet or TFRecord file, or a folder of them; may be given several times. "
        "Columns: the inputs by name (or `x`), the labels by the names of the outputs (or `y`), optionally "
        "`sample_weight`.",
        type=cli.EXISTING_PATH,
    )
    version: tuple[str, ...] = cli.option((), help="Version to evaluate; may be given several times.")
    metric: tuple[str, ...] = cli.option((), help="Metric to compute; by default all metrics of the model.")
    batch_size: int = cli.option(
        32,
        type=click.IntRange(min=1),
        help="Rows per step, as in model.evaluate(); some losses depend on it (sums, masks).",
    )
    report: Path | None = cli.option(
        None,
        help="HTML file to write: confusion matrix, curves, calibration, errors, worst rows, latency.",
    )
    json: bool = cli.option(
        False, help="Print one JSON object instead of a table, with null for numbers that are not finite."
    )
    timeout: float | None = cli.option(None, help="Seconds to wait for the results.")

    def __post_init__(self) -> None:
        self.check_engine(report=self.report, timeout=self.timeout)


@cli.command(example="kerve evaluate digits --data test.npz --version 3 --version 4")
def command(options: Options) -> None:
    """Compute a served model's loss and metrics on labelled data, as model.evaluate() does."""
    with nullcontext() if options.report is None else whole(options.report) as page:
        report, found = EVALUATIONS[options.engine](options)
        if report is not None and page is not None:
            page.write_text(report.html(found.results, found.differences), "utf-8")
    if options.json:
        click.echo(json.dumps(without_nan(as_json(found)), allow_nan=False))
        return
    print_results(found.results)
    for difference in found.differences:
        print_difference(difference)


def by_server(options: Options) -> tuple[Report | None, Compared]:
    """Send the rows to the server, which evaluates them."""
    source = open_files(options.data)
    with options.connect() as client:
        info = client.metadata(options.name, version=next(iter(options.version), ""), timeout=options.timeout)
        rows = Rows(source, info.signature, labelled=True)
        report = None if options.report is None else Report(info.signature)
        with Bar(len(rows)) as bar:
            return report, ask(client, options, rows, bar, report)


def ask(client: Client, options: Options, rows: Rows, bar: "Bar", report: Report | None) -> Compared:
    """Return the results of the requested versions; several are compared."""
    arguments: dict[str, Any] = {
        "metrics": options.metric,
        "batch_size": options.batch_size,
        "interval": INTERVAL if bar.shown else 0.0,
        "progress": bar.show,
        "watch": report and report.add,
        "timeout": options.timeout,
    }
    if len(options.version) > 1:
        return client.compare(options.name, rows, versions=options.version, **arguments)
    version = next(iter(options.version), "")
    return Compared((client.evaluate(options.name, rows, version=version, **arguments),), ())


def by_ray(options: Options) -> tuple[None, Compared]:
    """Evaluate on the workers of a Ray cluster, which read the rows."""
    # Imported only here: a client of a server does not load models.
    from kerve.runtime.distributed.cluster import cluster
    from kerve.runtime.distributed.evaluating import EvaluationOptions, evaluate
    from kerve.runtime.distributed.located import locate

    assert options.repository is not None
    repository = options.repository.resolve()
    versions = [locate(repository, options.name, each) for each in options.version or ("",)]
    parts = parts_of([path.resolve() for path in options.data])
    with Bar(sum(part.rows or 0 for part in parts)) as bar, cluster(options.ray_address) as ray:
        progress = bar.show if bar.shown else None
        wanted = EvaluationOptions(metrics=options.metric, batch_size=options.batch_size, progress=progress)
        return None, evaluate(ray, repository, versions, parts, wanted)


EVALUATIONS: Mapping[str, Callable[[Options], tuple[Report | None, Compared]]] = {
    "server": by_server,
    "ray": by_ray,
}


class Bar:
    """Progress on a terminal, with a line for each version and its results so far; nothing in a pipe."""

    def __init__(self, rows: int) -> None:
        """`rows`: 0 if the number is not known in advance."""
        self.shown = sys.stderr.isatty()
        self._rows = rows or None
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("version {task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} rows"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
            disable=not self.shown,
        )

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, so_far: Evaluated) -> None:
        """Update the progress with intermediate results."""
        if not self.shown:
            return
        if so_far.version not in self._tasks:
            self._tasks[so_far.version] = self._progress.add_task(
                so_far.version, total=self._rows, numbers=""
            )
        self._progress.update(
            self._tasks[so_far.version],
            completed=so_far.rows,
            total=so_far.rows if so_far.final else self._rows,
            numbers=escape(" - ".join(f"{name}: {show(value)}" for name, value in so_far.results.items())),
        )


def print_results(results: Sequence[Evaluated]) -> None:
    """Print results and latencies, with a column for each version."""
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
    """Format a number as Keras does, or an array."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{value:.4e}"
    return np.array2string(value, precision=4, separator=", ", threshold=6)


def print_difference(difference: Difference) -> None:
    """Print the differences between a version and the first one."""
    rows = [(f"agreement of {name}", f"{share:.2%}", "") for name, share in difference.agreement.items()]
    rows += [
        (each.metric, f"{each.difference:+.4f}", f"{each.low:+.4f} to {each.high:+.4f}")
        for each in difference.intervals
    ]
    shown, more = difference.disagreeing_rows[:SHOWN_ROWS], difference.disagreeing_rows[SHOWN_ROWS:]
    if shown:
        rows.append(("rows that differ", ", ".join(map(str, shown)) + (", ..." if more else ""), ""))
    title = f"version {difference.version} vs. version {difference.baseline}"
    print_table(title, ("", "difference", "95 % confidence"), rows)


def as_json(found: Compared) -> dict[str, Any]:
    """Return the results as JSON values; of several versions, a list with the differences from the first."""
    first = found.results[0]
    if len(found.results) == 1:
        return result_as_json(first)
    return {
        "model": first.model,
        "rows": first.rows,
        "versions": [result_as_json(each) for each in found.results],
        "differences": [asdict(each) for each in found.differences],
    }


def result_as_json(each: Evaluated) -> dict[str, Any]:
    """Return an evaluation as JSON values."""
    return {
        "model": each.model,
        "version": each.version,
        "rows": each.rows,
        "seconds": each.seconds,
        "results": {
            name: value if isinstance(value, float) else value.tolist()
            for name, value in each.results.items()
        },
    }


def without_nan(value: Any) -> Any:
    """Replace numbers that are not finite, which JSON does not have, by None."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: without_nan(each) for key, each in value.items()}
        case list() | tuple():
            return [without_nan(each) for each in value]
        case _:
            return value
