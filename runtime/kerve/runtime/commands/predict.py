"""`kerve predict`."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.commands.engine import Engine
from kerve.runtime.data import DataError, Rows, open_files, writing
from kerve.runtime.data.parts import parts_of
from kerve.runtime.datatypes import Array
from kerve.runtime.signature import TensorSpec

__all__ = ["command"]

# Maximum number of rows whose class is shown.
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Options(Engine):
    """The options of `kerve predict`."""

    name: str = cli.argument(help="Name of the served model.")
    data: tuple[Path, ...] = cli.option(
        help=".npz, .npy, .csv, Parquet or TFRecord file, or a folder of them; may be given several times. "
        "Columns are named as the model's inputs, or `x` for a single input; others are ignored. With "
        "--engine ray only Parquet; other columns are copied to the output.",
        type=cli.EXISTING_PATH,
        also="--input",
    )
    output: Path | None = cli.option(
        None,
        help="File for the outputs; its suffix selects the format: .npz, .npy, .csv or .parquet. With "
        "--engine ray an empty or new folder for Parquet files.",
    )
    model_version: str = cli.option("", help="Version to use; by default the server chooses.")
    timeout: float | None = cli.option(None, help="Seconds to wait for the answer.")

    def __post_init__(self) -> None:
        self.check_engine(timeout=self.timeout)
        if self.engine == "ray" and self.output is None:
            raise ValueError("--engine ray needs --output, the folder for the outputs")


@cli.command(example="kerve predict digits --data test.npz --output predictions.npz")
def command(options: Options) -> None:
    """Run a model on rows and show its outputs: name, dtype, shape, classes if any."""
    PREDICTIONS[options.engine](options)


def by_server(options: Options) -> None:
    """Send the rows to the server."""
    source = open_files(options.data)
    with options.connect() as client, ExitStack() as stack:
        info = client.metadata(options.name, version=options.model_version, timeout=options.timeout)
        rows = Rows(source, info.signature, labelled=False)
        write = stack.enter_context(writing(options.output)) if options.output is not None else None
        seen = {spec.name: Seen(spec) for spec in info.signature.outputs}
        for answer in client.predict_batches(
            options.name, rows, version=options.model_version, timeout=options.timeout
        ):
            for name, array in answer.items():
                seen[name].add(array)
            if write is not None:
                write(answer)
        if not any(each.blocks for each in seen.values()):
            raise DataError(f"{source.path} has no rows")
    print_outputs(options.name, [(name, each.dtype, each.shape) for name, each in seen.items()])
    for each in seen.values():
        if each.is_distribution:
            print_classes(each)


def by_ray(options: Options) -> None:
    """Predict on the workers of a Ray cluster, which read the rows and write the outputs."""
    # Imported only here: a client of a server does not load models.
    from kerve.runtime.distributed.cluster import cluster
    from kerve.runtime.distributed.located import locate
    from kerve.runtime.distributed.predicting import check_folder, predict

    assert options.repository is not None
    assert options.output is not None
    check_folder(options.output)
    version = locate(options.repository.resolve(), options.name, options.model_version)
    parts = parts_of([path.resolve() for path in options.data])
    with cluster(options.ray_address) as ray:
        written = predict(ray, version, parts, options.output)
    rows = sum(each.rows for each in written)
    shapes = written[0].outputs.items()
    print_outputs(options.name, [(name, dtype, (rows, *shape)) for name, (dtype, shape) in shapes])


PREDICTIONS: Mapping[str, Callable[[Options], None]] = {"server": by_server, "ray": by_ray}


def print_outputs(model: str, outputs: Iterable[tuple[str, str, tuple[int, ...]]]) -> None:
    """Print the names, dtypes and shapes of the outputs."""
    rows = [(name, dtype, str(shape)) for name, dtype, shape in outputs]
    print_table(f"outputs of {model}", ("output", "dtype", "shape"), rows)


class Seen:
    """Summary of an output, without its rows."""

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.blocks = 0
        self.dtype = ""
        self.shape: tuple[int, ...] = ()
        #: The first rows.
        self.first: Array = np.empty(0)
        #: Whether rows are class scores: there are class names, or each row is a distribution.
        self.is_distribution = True

    def add(self, array: Array) -> None:
        """Add the next rows."""
        if not self.blocks:
            self.dtype, self.shape = str(array.dtype), array.shape
            self.first = array[:SHOWN] if array.ndim else array
        else:
            self.shape = (self.shape[0] + len(array), *array.shape[1:])
            if len(self.first) < SHOWN and self.first.shape[1:] == array.shape[1:]:
                self.first = np.concatenate([self.first, array])[:SHOWN]
        self.blocks += 1
        self.is_distribution = self.is_distribution and is_distribution(self.spec, array)


def is_distribution(spec: TensorSpec, array: Array) -> bool:
    """Return whether each row is class scores."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind != "f":
        return False
    sums = array.sum(axis=1, dtype=np.float64)
    return bool(spec.labels) or bool((array >= 0).all() and np.allclose(sums, 1, atol=1e-2))


def print_classes(output: Seen) -> None:
    """Print the most likely class of the first rows."""
    spec, array = output.spec, output.first
    best = array.argmax(axis=1).tolist()
    print_table(
        f"{spec.name}, {len(array)} of {output.shape[0]} rows",
        ("row", "class", "score"),
        [
            (str(row), spec.labels[index] if spec.labels else str(index), f"{array[row, index]:.4f}")
            for row, index in enumerate(best)
        ],
    )
