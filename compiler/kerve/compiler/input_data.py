"""In-memory data, written to the `.npz` files that a compile reads."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kerve.compiler.errors import CompileError, LoadError
from kerve.compiler.options import VerifyOptions

__all__ = ["with_files"]

T = TypeVar("T", bound=VerifyOptions)

_Arrays = dict[str, NDArray[Any]]

_ENDLESS = -1  # `tf.data.INFINITE_CARDINALITY`


@contextmanager
def with_files(options: T, **given: Any) -> Iterator[T]:
    """Yield the options with a file for each of `given` ("data", "calibration") that is not None.

    Each value is a path, or data as `keras.Model.fit` takes it: an array, a list or a dictionary of arrays,
    a tuple of those and labels, or batches of such (a `tf.data.Dataset`, a `PyDataset`, a finite generator).
    Raises `LoadError` for anything else. Error messages refer to data by its name, not its temporary file.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        yield options
        return
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Any] = {name: _file(name, value, Path(folder)) for name, value in given.items()}
        try:
            yield replace(options, **files)
        except CompileError as error:
            text = str(error)
            for name in files:
                text = text.replace(str(Path(folder) / f"{name}.npz"), name)
            raise (error if text == str(error) else type(error)(text)) from error.__cause__


def _file(name: str, value: Any, folder: Path) -> Path:
    if isinstance(value, str | Path):
        return Path(value)
    try:
        arrays = _arrays(value)
    except (ValueError, TypeError) as error:  # raised by NumPy for rows of different lengths, for example
        raise LoadError(
            f"{name} is a {type(value).__name__}, but not in a form that model.fit accepts: {error}"
        ) from error
    path = folder / f"{name}.npz"
    # Not numpy.savez: it takes the names as keywords, and an input may be called `file`.
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return path


def _arrays(value: Any) -> _Arrays:
    """Return the arrays under the names that the reader of `.npz` files expects."""
    if isinstance(value, tuple):
        return _row(value)
    if isinstance(value, Mapping | list) or hasattr(value, "__array__"):
        return _inputs(value)
    return _joined(_batches(value))


def _row(value: tuple[Any, ...]) -> _Arrays:
    """Return the arrays of (inputs, labels, sample weights); sample weights are ignored."""
    if not 1 <= len(value) <= 3:
        raise ValueError(f"expected (inputs, labels), got {len(value)} items")
    return (_labels(value[1]) if len(value) > 1 else {}) | _inputs(value[0])


def _inputs(value: Any) -> _Arrays:
    if isinstance(value, Mapping):
        return {str(key): _array(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return {f"arr_{index}": _array(item) for index, item in enumerate(value)}
    return {"x": _array(value)}


def _labels(value: Any) -> _Arrays:
    if isinstance(value, list | tuple):
        raise ValueError("expected the labels of several outputs as a dictionary by output name")
    return _inputs(value) if isinstance(value, Mapping) else {"y": _array(value)}


def _batches(value: Any) -> Iterator[Any]:
    if hasattr(value, "cardinality") and int(value.cardinality()) == _ENDLESS:
        raise ValueError("it is infinite; give value.take(COUNT)")
    if hasattr(value, "__iter__"):
        yield from value
        return
    yield from (value[index] for index in range(len(value)))


def _joined(batches: Iterable[Any]) -> _Arrays:
    named = [_row(batch) if isinstance(batch, tuple) else _inputs(batch) for batch in batches]
    if not named:
        raise ValueError("it is empty")
    return {name: np.concatenate([each[name] for each in named]) for name in named[0]}


def _array(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype != object:
        return array
    items = array.reshape(-1).tolist()
    if odd := [item for item in items if not isinstance(item, str | bytes)]:
        raise TypeError(f"an array holds a {type(odd[0]).__name__}; expected numbers or strings")
    texts = [item.decode() if isinstance(item, bytes) else item for item in items]
    return np.array(texts, dtype=np.str_).reshape(array.shape)
