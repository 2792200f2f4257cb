"""`kerve predict`."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.commands.connection import Connection
from kerve.runtime.datatypes import Array
from kerve.runtime.signature import Signature, TensorSpec

__all__ = ["command"]

# Rows whose class is shown.
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """What `kerve predict` takes."""

    name: str = cli.argument(help="Name of the served model.")
    data: Path = cli.option(
        help="NumPy .npz file with arrays named as the model's inputs, or `x` for a single input.",
        type=cli.EXISTING_FILE,
    )
    output: Path | None = cli.option(None, help="NumPy .npz file to write the outputs to.")
    model_version: str = cli.option("", help="Version to ask; by default the one the server chooses.")
    timeout: float | None = cli.option(None, help="Seconds to wait for the answer.")


@cli.command(example="kerve predict digits --data test.npz --output predictions.npz")
def command(options: Options) -> None:
    """Send arrays to a served model and show its outputs: name, dtype, shape, classes if any."""
    arrays = read_arrays(options.data)
    with options.connect() as client:
        info = client.metadata(options.name, version=options.model_version, timeout=options.timeout)
        outputs = client.predict(
            options.name,
            choose_inputs(info.signature, arrays, options.data),
            version=options.model_version,
            timeout=options.timeout,
        )
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


def read_arrays(file: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file."""
    if not zipfile.is_zipfile(file):
        raise click.UsageError(f"{file} is not a NumPy .npz file; write one with numpy.savez")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise click.UsageError(f"{file} holds something else than plain arrays: {error}") from error


def write_arrays(file: Path, outputs: Mapping[str, Array]) -> None:
    """Write outputs to an .npz file; BYTES in a fixed width, which needs no pickle.

    Not numpy.savez: it takes the names as keywords, and an output may be called `file`.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w") as stream:
                plain = array.astype("S") if array.dtype == object else array
                np.lib.format.write_array(stream, plain, allow_pickle=False)


def choose_inputs(signature: Signature, arrays: Mapping[str, Array], file: Path) -> dict[str, Array]:
    """Return the arrays that are the model's inputs; others in the file, such as labels, are left out."""
    needed = [spec.name for spec in signature.inputs if not spec.optional]
    if all(name in arrays for name in needed):
        return {spec.name: arrays[spec.name] for spec in signature.inputs if spec.name in arrays}
    if len(needed) == 1 and "x" in arrays:
        return {needed[0]: arrays["x"]}
    alternative = " or `x`" if len(needed) == 1 else ""
    raise click.UsageError(
        f"{file}: expected arrays named {', '.join(needed)}{alternative}; "
        f"it has: {', '.join(arrays) or 'none'}"
    )


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
