"""`kerve stats`."""

from dataclasses import dataclass

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.client import ModelStatistics
from kerve.runtime.commands.connection import Connection

__all__ = ["command"]

COLUMNS = (
    "model",
    "version",
    "requests",
    "failed",
    "rows",
    "batches",
    "rows/batch",
    "request",
    "queue",
    "compute",
)


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """The options of `kerve stats`."""

    name: str = cli.argument("", help="Name of the model; all models without one.")


@cli.command(example="kerve stats digits")
def command(options: Options) -> None:
    """Show the statistics of a server since its models were loaded; times are means per request."""
    with options.connect() as client:
        found = client.statistics(options.name)
    print_table(f"statistics of {options.address}", COLUMNS, [row(each) for each in found])


def row(stats: ModelStatistics) -> tuple[str, ...]:
    """Return the table row of one version."""
    counts = (stats.requests, stats.failed, stats.rows, stats.batches)
    means = (stats.request_ns, stats.queue_ns, stats.compute_ns)
    return (
        stats.name,
        stats.version,
        *(f"{count:,}" for count in counts),
        f"{stats.rows / stats.batches:.1f}" if stats.batches else "",
        *(f"{each / stats.requests / 1e6:.3f} ms" if stats.requests else "" for each in means),
    )
