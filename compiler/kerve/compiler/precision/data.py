"""The data on which a reduced precision is calibrated and evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.errors import LoadError
from kerve.compiler.verification import Dataset, from_file, more_rows

__all__ = ["Data", "labels_in"]

#: Rows of seeded inputs, if the user gives no data.
_SEEDED_ROWS = 64


@dataclass(frozen=True)
class Data:
    """Inputs for evaluation, with labels of some outputs, and inputs for measuring activation ranges."""

    assessed: Dataset
    labels: Mapping[str, NDArray[Any]]
    measured: Dataset

    @classmethod
    def of(cls, model: ir.Model, like: Dataset, data: Path | None, calibration: Path | None) -> Data:
        """Take each from its own file, else from the other file, else seeded (with the sizes of `like`).

        Labels are arrays of `data` named like an output, or `y` if there is one output. Raises `LoadError` if
        a file does not fit the model.
        """
        assessed = None if data is None else from_file(model, data)
        measured = None if calibration is None else from_file(model, calibration)
        seeded = more_rows(model, like, _SEEDED_ROWS) if assessed is measured is None else like
        return cls(
            assessed=assessed or measured or seeded,
            labels={} if data is None or assessed is None else labels_in(model, data, assessed),
            measured=measured or assessed or seeded,
        )


def labels_in(model: ir.Model, path: Path, dataset: Dataset) -> dict[str, NDArray[Any]]:
    """Return the labels in a file, by output; raises `LoadError` if they do not fit."""
    inputs = [str(value.name) for value in model.graph.inputs]
    outputs = [str(value.name) for value in model.graph.outputs]
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in inputs}
    found = {name: arrays[name] for name in outputs if name in arrays}
    if not found and "y" in arrays:
        if len(outputs) > 1:
            raise LoadError(
                f"{path}: the labels y could be of {', '.join(outputs)}; name the array after its output"
            )
        found[outputs[0]] = arrays["y"]
    for name, labels in found.items():
        rows = dataset.sizes.get("batch")
        if labels.ndim == 0 or (rows is not None and len(labels) != rows):
            raise LoadError(
                f"{path}: the labels of output '{name}' have shape {list(labels.shape)}; "
                f"expected {rows} rows, as the inputs have"
            )
    return found
