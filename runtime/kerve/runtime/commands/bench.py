"""`kerve bench`."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from kerve.cli import options as cli
from kerve.cli.tables import print_table, print_warning
from kerve.runtime.bench.load import Concurrency, Poisson, Recorder, Send
from kerve.runtime.bench.measure import Load, Result, measure
from kerve.runtime.bench.native import Native, can_send
from kerve.runtime.bench.plot import plot
from kerve.runtime.client import Client, EncodedCall, ModelStatistics
from kerve.runtime.commands.connection import Connection
from kerve.runtime.data import Rows, open_files
from kerve.runtime.data.writing import whole
from kerve.runtime.datatypes import DATATYPES, Array
from kerve.runtime.signature import Signature

__all__ = ["command"]

COLUMNS = ("load", "requests/s", "rows/s", "p50", "p90", "p99", "queue", "compute", "rows/batch", "failed")


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """The options of `kerve bench`."""

    name: str = cli.argument(help="Name of the served model.")
    concurrency: tuple[int, ...] = cli.option(
        (1, 4, 16, 64),
        help="Concurrent calls; may be given several times.",
        type=click.IntRange(min=1),
    )
    rate: tuple[float, ...] = cli.option(
        (),
        help="Calls per second, with Poisson arrivals, instead of --concurrency.",
        type=click.FloatRange(min=0.1),
    )
    batch_size: int = cli.option(1, help="Rows per request.", type=click.IntRange(min=1))
    data: tuple[Path, ...] = cli.option(
        (),
        help="Files with the inputs, in the formats of `kerve predict`; without any, inputs are random.",
        type=cli.EXISTING_FILE,
    )
    window: float = cli.option(1.0, help="Seconds per measurement window.", type=click.FloatRange(min=0.1))
    stability: float = cli.option(
        0.1,
        help="Largest relative difference among three consecutive windows.",
        type=click.FloatRange(min=0),
    )
    max_windows: int = cli.option(10, help="Largest number of windows.", type=click.IntRange(min=1))
    plot: Path | None = cli.option(None, help="SVG file for latency over throughput.")


@cli.command(example="kerve bench digits --concurrency 1 --concurrency 64 --plot digits.svg")
def command(options: Options) -> None:
    """Measure the throughput and latency of a served model at each load, and the server's share of the time.

    kerve-wire generates the load if it is installed, with little overhead. Otherwise, and over TLS, Python
    does: a few thousand calls per second, and its own time is part of the latencies. Each load runs until
    three consecutive windows agree; queue and compute are the server's means.
    """
    with nullcontext() if options.plot is None else whole(options.plot) as page:
        results = measured(options)
        if page is not None:
            title = f"{options.name}, {options.batch_size} rows per request"
            page.write_text(plot(title, results), "utf-8")


def measured(options: Options) -> list[Result]:
    """Measure each load and print the results."""
    with options.connect() as client:
        signature = client.metadata(options.name).signature
        inputs = inputs_for(signature, options)
        client.infer(options.name, inputs)  # reports why requests fail; the load only counts failures
        call = client.encoded(options.name, inputs)
        native = can_send(call, encrypted=options.root_cert is not None)
        makers = native_loads(options, call) if native else loads(options, client.sender(call))

        def statistics() -> ModelStatistics:
            return newest(client, options.name)

        results = []
        with Console(stderr=True).status("") as status:
            for label, load, recorder in makers:
                status.update(f"measuring {label}")
                result = measure(
                    label,
                    load,
                    recorder,
                    statistics,
                    seconds=options.window,
                    stability=options.stability,
                    max_windows=options.max_windows,
                )
                results.append(result)
    print_table(
        f"{options.name} at {options.address}, load from {'kerve-wire' if native else 'Python'}",
        COLUMNS,
        [row(each, options.batch_size) for each in results],
    )
    for result in results:
        if not result.stable:
            print_warning(
                f"{result.load}: the windows differ by more than --stability; the machine is busy, or "
                "--window is too short"
            )
    return results


def loads(options: Options, call: Send) -> Iterator[tuple[str, Load, Recorder]]:
    """Yield the requested loads: label, load generator, recorder."""
    if options.rate:
        for rate in options.rate:
            recorder = Recorder()
            yield f"{rate:g}/s", Poisson(call, rate, recorder), recorder
        return
    for number in options.concurrency:
        recorder = Recorder()
        yield f"{number} concurrent", Concurrency(call, number, recorder), recorder


def native_loads(options: Options, call: EncodedCall) -> Iterator[tuple[str, Load, Recorder]]:
    """Yield the same loads, generated by kerve-wire."""
    for rate in options.rate:
        native = Native(call, request_rate=rate)
        yield f"{rate:g}/s", native, native
    for number in () if options.rate else options.concurrency:
        native = Native(call, concurrency=number)
        yield f"{number} concurrent", native, native


def inputs_for(signature: Signature, options: Options) -> dict[str, Array]:
    """Return the rows of a request, from files or random; dynamic dimensions other than the batch are 1."""
    if options.data:
        return Rows(open_files(options.data), signature, labelled=False).first(options.batch_size)
    random = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = [size if isinstance(size, int) else 1 for size in spec.shape]
        if signature.batched:
            shape[0] = options.batch_size
        if spec.datatype == "BYTES":
            inputs[spec.name] = np.full(shape, b"kerve", object)
        elif DATATYPES[spec.datatype].dtype.kind == "f" or spec.datatype == "BF16":
            inputs[spec.name] = random.random(shape, np.float32)
        else:
            inputs[spec.name] = np.zeros(shape, DATATYPES[spec.datatype].dtype)
    return inputs


def newest(client: Client, name: str) -> ModelStatistics:
    """Return the statistics of the newest version, which answers."""
    return max(client.statistics(name), key=lambda each: int(each.version))


def row(result: Result, batch_size: int) -> tuple[str, ...]:
    """Return the table row of one load."""
    return (
        result.load,
        f"{result.requests_per_second:,.0f}",
        f"{result.requests_per_second * batch_size:,.0f}",
        *(f"{each:.2f} ms" for each in (result.p50, result.p90, result.p99, result.queue, result.compute)),
        f"{result.rows_per_batch:.1f}",
        str(result.failures),
    )
