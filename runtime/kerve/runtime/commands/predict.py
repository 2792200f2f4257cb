"""`kerve predict`."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.commands.connection import Connection
from kerve.runtime.data import DataError, Rows, open_files
from kerve.runtime.datatypes import Array
from kerve.runtime.signature import TensorSpec

__all__ = ["command"]

# Rows whose class is shown.
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """What `kerve predict` takes."""

    name: str = cli.argument(help="Name of the served model.")
    data: tuple[Path, ...] = cli.option(
        help=".npz, .npy, .csv, Parquet or TFRecord file, several times for several files: columns named as "
        "the model's inputs, or `x` for a single input; other columns are left out.",
        type=cli.EXISTING_FILE,
    )
    output: Path | None = cli.option(None, help="NumPy .npz file to write the outputs to.")
    model_version: str = cli.option("", help="Version to ask; by default the one the server chooses.")
    timeout: float | None = cli.option(None, help="Seconds to wait for the answer.")


@cli.command(example="kerve predict digits --data test.npz --output predictions.npz")
def command(options: Options) -> None:
    """Send arrays to a served model and show its outputs: name, dtype, shape, classes if any."""
    source = open_files(options.data)
    with options.connect() as client:
        info = client.metadata(options.name, version=options.model_version, timeout=options.timeout)
        rows = Rows(source, info.signature, labelled=False)
        answers = list(
            client.predict_batches(options.name, rows, version=options.model_version, timeout=options.timeout)
        )
    if not answers:
        raise DataError(f"{source.path} has no rows")
    outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    if options.output is not None:
        write_arrays(options.output, outputs)
    print_table(
        f"outputs of {options.name}",
        ("output", "dtype", "shape"),
        [(name, str(array.dtype), str(array.shape)) for name, array in outputs.items()],
    )
    for spec in info.signature.outputs:
        if is_distribution(spec, outputs[spec.name]):
            print_classes(spec, outputs[spec.name])


def write_arrays(file: Path, outputs: Mapping[str, Array]) -> None:
    """Write outputs to an .npz file; BYTES in a fixed width, which needs no pickle.

    Not numpy.savez: it takes the names as keywords, and an output may be called `file`.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w") as stream:
                plain = array.astype("S") if array.dtype == object else array
                np.lib.format.write_array(stream, plain, allow_pickle=False)


def is_distribution(spec: TensorSpec, array: Array) -> bool:
    """Return whether rows are over classes: these have names, or each row is positive and adds up to 1."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind != "f":
        return False
    sums = array.sum(axis=1, dtype=np.float64)
    return bool(spec.labels) or bool((array >= 0).all() and np.allclose(sums, 1, atol=1e-2))


def print_classes(spec: TensorSpec, array: Array) -> None:
    """Print the likeliest class of the first rows."""
    best = array[:SHOWN].argmax(axis=1).tolist()
    print_table(
        f"{spec.name}, {min(SHOWN, len(array))} of {len(array)} rows",
        ("row", "class", "score"),
        [
            (str(row), spec.labels[index] if spec.labels else str(index), f"{array[row, index]:.4f}")
            for row, index in enumerate(best)
        ],
    )
