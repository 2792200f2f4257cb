"""Run the compiled model and its source on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from kerve.compiler.errors import VerificationError
from kerve.compiler.verification.compare import Check, Tolerance, compare
from kerve.compiler.verification.data import SIZES, Dataset, seeded

__all__ = ["Reference", "Verified", "verify"]

#: The source model as a function: named inputs to named outputs.
Reference = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Verified:
    """The record of a verification, and one data set with the source's answers to keep as golden."""

    checks: tuple[Check, ...]
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]

    @property
    def passed(self) -> bool:
        """Whether every answer is within its dtype's tolerance."""
        return all(check.passed for check in self.checks)

    @property
    def worst(self) -> float:
        """The largest error of all."""
        return max((check.max_abs_error for check in self.checks), default=0.0)


def verify(model: ir.Model, path: Path, reference: Reference, user_data: Iterable[Dataset] = ()) -> Verified:
    """Compare the ONNX file at `path` (described by `model`) with its source.

    The inputs are seeded ones at two sizes of every open dimension, then the user's. Raises
    `VerificationError` when either side cannot answer; a difference is for the caller to judge.
    """
    session = _session(path)
    data, answers = _answered(model, reference)
    for dataset in user_data:
        data.append(dataset)
        answers.append(reference(dataset.inputs))
    checks = [
        check
        for dataset, answer in zip(data, answers, strict=True)
        for check in _compare(session, dataset, answer)
    ]
    return Verified(tuple(checks), data[0].inputs, answers[0])


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, which share no public base
        raise VerificationError(f"ONNX Runtime cannot load the compiled model: {error}") from error


def _answered(
    model: ir.Model, reference: Reference
) -> tuple[list[Dataset], list[Mapping[str, NDArray[Any]]]]:
    """Find sizes of open dimensions that the source accepts."""
    open_dims = any(
        not isinstance(dim, int) and dim.value != "batch"
        for value in model.graph.inputs
        for dim in (value.shape or ())
    )
    candidates = SIZES if open_dims else SIZES[:1]
    for sizes in candidates:
        data = list(seeded(model, sizes))
        try:
            return data, [reference(dataset.inputs) for dataset in data]
        except Exception as error:
            if sizes is candidates[-1]:
                raise VerificationError(
                    f"the source model fails on random inputs, so nothing can be proven: "
                    f"{_first_line(error)}; give inputs that it accepts with --data FILE.npz"
                ) from error
    raise AssertionError("candidates is never empty")


def _compare(
    session: ort.InferenceSession, dataset: Dataset, answer: Mapping[str, NDArray[Any]]
) -> Iterable[Check]:
    names = [output.name for output in session.get_outputs()]
    for name, got in zip(names, _run(session, names, dataset), strict=True):
        want = _as_onnxruntime_gives(np.asarray(answer[name]))
        yield compare(
            _as_onnxruntime_gives(got),
            want,
            Tolerance.of(want.dtype),
            data=dataset.origin,
            sizes=dataset.sizes,
            output=name,
        )


def _run(session: ort.InferenceSession, names: list[str], dataset: Dataset) -> list[NDArray[Any]]:
    wanted = {value.name for value in session.get_inputs()}
    feeds = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), ir.DataType.BFLOAT16)
        if array.dtype.name == "bfloat16"
        else array
        for name, array in dataset.inputs.items()
        if name in wanted
    }
    try:
        return list(session.run(names, feeds))
    except Exception as error:  # onnxruntime raises its own classes, which share no public base
        raise VerificationError(f"the compiled model fails where its source answers: {error}") from error


def _as_onnxruntime_gives(array: NDArray[Any]) -> NDArray[Any]:
    """Strings as str objects, whether they came as bytes or as str."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
    return np.array(texts, dtype=object).reshape(array.shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
