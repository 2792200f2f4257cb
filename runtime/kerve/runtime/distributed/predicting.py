"""Prediction on a cluster: writes a Parquet file of outputs for each part of a folder of Parquet files.

A file has the rows of its part in order: the columns that are not inputs of the model, such as an id, and the
outputs. The files are moved to the folder at the end, when all parts are done.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerve.runtime.data import DataError, Rows
from kerve.runtime.data.parquet import ParquetFile
from kerve.runtime.data.parts import Part
from kerve.runtime.data.writing import ParquetWriter, arrow_column, whole
from kerve.runtime.datatypes import BF16, Array, bfloat16_to_float32
from kerve.runtime.devices.device_array import all_at_host
from kerve.runtime.distributed.cluster import spread
from kerve.runtime.distributed.located import Located, computing
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.evaluation.deferred import DeferredComputation, Evaluable
from kerve.runtime.protocol.oip_client import to_tensor
from kerve.runtime.signature import Signature, check_tensor

__all__ = ["OutputFile", "predict"]

# Subfolder of files until all are complete; readers of Parquet ignore folders whose name begins with a dot.
WAITING = ".unfinished"


@dataclass(frozen=True)
class OutputFile:
    """A file of outputs: its number of rows, and the dtype and row shape of each output."""

    file: str
    rows: int
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass
class PredictTask:
    """The task of a worker: write the outputs of a part."""

    version: Located
    folder: Path
    _served: Evaluable | None = None

    def prepare(self) -> None:
        """Load the version."""
        self._served = computing(self.version)

    def work(self, part: Part) -> Iterator[OutputFile]:
        """Write a file atomically; it may replace an equal file of a repeated part."""
        source = part.open()
        if not isinstance(source, ParquetFile):
            raise DataError(f"{source.path}: kerve predict --engine ray reads and writes Parquet")
        if not source.rows:
            return
        name = f"part-{part.number:05d}.parquet"
        with whole(self.folder / name) as file:
            written = self._write(source, name, file)
        yield written

    def _write(self, source: ParquetFile, name: str, file: Path) -> OutputFile:
        assert self._served is not None
        signature = self._served.model.signature
        rows = Rows(source, signature, labelled=False)
        others = beside(source, rows, signature)
        writer, count, seen = ParquetWriter(file), 0, {}
        try:
            for block, batch in zip(rows, source.batches(others), strict=True):
                found = computed(self._served, block, f"{source.path}: row {source.first + count}")
                seen = {key: (str(array.dtype), array.shape[1:]) for key, array in found.items()}
                columns = {each: batch.column(batch.schema.get_field_index(each)) for each in others}
                writer.write(columns | {key: arrow_column(array) for key, array in found.items()})
                count += len(next(iter(block.values())))
        finally:
            writer.close(complete=True)
        return OutputFile(name, count, seen)


def beside(source: ParquetFile, rows: Rows, signature: Signature) -> list[str]:
    """Return the columns to copy next to the outputs: neither inputs nor names of outputs."""
    taken = {*rows.columns, *(spec.name for spec in signature.outputs)}
    return [each for each in source.columns if each not in taken]


def computed(served: Evaluable, block: Mapping[str, Array], where: str) -> dict[str, Array]:
    """Return the outputs of some rows."""
    signature = served.model.signature
    inputs, sizes = {}, dict[str, tuple[int, str]]()
    try:
        for name, array in block.items():
            spec = signature.input(name)
            inputs[name] = to_tensor(spec, array)
            check_tensor(spec, spec.datatype, inputs[name].shape, sizes)
        answered, _ = DeferredComputation(served, inputs, [spec.name for spec in signature.outputs]).wait()
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}, or after it: {error}") from error
    found = all_at_host(answered)
    return {
        spec.name: bfloat16_to_float32(found[spec.name]) if spec.datatype == BF16.name else found[spec.name]
        for spec in signature.outputs
    }


def predict(ray: Any, version: Located, parts: Sequence[Part], folder: Path) -> list[OutputFile]:
    """Write the outputs of all parts to a folder; return the files in the order of the rows.

    Raises DataError and the errors of `Client.predict`, in which case the folder is unchanged.
    """
    check_folder(folder)
    there, waiting = folder.exists(), folder / WAITING
    waiting.mkdir(parents=True)
    try:
        written = list(spread(ray, PredictTask(version, waiting.resolve()), parts))
        if not written:
            raise DataError(f"{parts[0].paths[0]}: there are no rows to predict")
        for each in written:
            (waiting / each.file).rename(folder / each.file)
    except BaseException:
        for file in folder.glob("part-*"):  # the folder was empty before
            file.unlink()
        shutil.rmtree(waiting, ignore_errors=True)
        if not there:
            folder.rmdir()
        raise
    shutil.rmtree(waiting, ignore_errors=True)
    return written


def check_folder(folder: Path) -> None:
    """Raise DataError unless a folder can take the outputs."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty; expected an empty or new folder")
