"""kerve.evaluation.v1: conversion of messages to and from arrays and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.datatypes import BF16, BY_DTYPE, DATATYPES, Array, bfloat16_to_float32
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.tensors import from_raw, to_raw
from kerve.runtime.signature import show_shape

if TYPE_CHECKING:
    from kerve.runtime.evaluation.comparison import Comparison

__all__ = [
    "SERVICE",
    "datatype_of",
    "decode_answers",
    "decode_batch",
    "encode_answers",
    "encode_batch",
    "encode_difference",
    "encode_results",
]

SERVICE = pb.DESCRIPTOR.services_by_name["EvaluationService"]


def decode_batch(batch: pb.Batch) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a batch and their datatypes, by name."""
    arrays: dict[str, Array] = {}
    for tensor in batch.tensors:
        label = f"tensor {tensor.name!r}"
        if tensor.name in arrays:
            raise InvalidArgumentError(f"{label} is given twice")
        if tensor.datatype not in DATATYPES:
            raise InvalidArgumentError(
                f"{label}: expected one of {', '.join(DATATYPES)}, got datatype {tensor.datatype!r}"
            )
        if any(size < 0 for size in tensor.shape):
            raise InvalidArgumentError(
                f"{label}: expected sizes of 0 or more, got {show_shape(tensor.shape)}"
            )
        arrays[tensor.name] = from_raw(label, tensor.datatype, tensor.shape, tensor.contents)
    return arrays, {tensor.name: tensor.datatype for tensor in batch.tensors}


def encode_batch(arrays: Mapping[str, tuple[str, Array]]) -> pb.Batch:
    """Return the message for arrays with their datatypes, by name."""
    return pb.Batch(
        tensors=[
            pb.Tensor(
                name=name,
                datatype=datatype,
                shape=array.shape,
                contents=to_raw(np.ascontiguousarray(array), datatype),
            )
            for name, (datatype, array) in arrays.items()
        ]
    )


def encode_answers(version: str, first_row: int, arrays: Mapping[str, tuple[str, Array]]) -> pb.Answers:
    """Return the message for a version's outputs of a batch."""
    return pb.Answers(version=version, first_row=first_row, outputs=encode_batch(arrays).tensors)


def decode_answers(answers: pb.Answers) -> dict[str, Array]:
    """Return the outputs of a batch by name; BF16 as float32."""
    arrays, datatypes = decode_batch(pb.Batch(tensors=answers.outputs))
    return {
        name: bfloat16_to_float32(array) if datatypes[name] == BF16.name else array
        for name, array in arrays.items()
    }


def datatype_of(array: Array) -> str:
    """Return the datatype of labels or weights, by the dtype of their array."""
    if array.dtype not in BY_DTYPE:
        raise InvalidArgumentError(f"labels and weights are numbers; got an array of {array.dtype}")
    return BY_DTYPE[array.dtype].name


def encode_difference(comparison: Comparison, version: str, baseline: str) -> pb.Difference:
    """Return the message for the differences between two versions."""
    return pb.Difference(
        version=version,
        baseline=baseline,
        agreement=comparison.agreement,
        disagreeing_rows=comparison.disagreeing,
        intervals=[
            pb.Difference.Interval(
                metric=each.metric, difference=each.difference, low=each.low, high=each.high
            )
            for each in comparison.intervals()
        ],
    )


def encode_results(
    numbers: Mapping[str, Array],
    *,
    model: str,
    version: str,
    rows: int,
    seconds: float,
    latencies: Sequence[float],
    final: bool,
) -> pb.Results:
    """Return the message for the results so far; `latencies`: the seconds of each batch."""
    p50, p90, p99 = np.percentile(latencies, (50, 90, 99)) if latencies else (0.0, 0.0, 0.0)
    return pb.Results(
        model=model,
        version=version,
        metrics=[
            pb.Metric(name=name, values=value.ravel().tolist(), shape=value.shape)
            for name, value in numbers.items()
        ],
        rows=rows,
        seconds=seconds,
        rows_per_second=rows / seconds if seconds else 0.0,
        latency=pb.Latency(
            batches=len(latencies),
            mean=float(np.mean(latencies)) if latencies else 0.0,
            p50=p50,
            p90=p90,
            p99=p99,
            max=max(latencies, default=0.0),
        ),
        final=final,
    )
