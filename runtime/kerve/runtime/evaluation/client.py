"""The client side of an evaluation: converts arrays, generators and datasets, and decodes results."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kerve.cli.html import captioned, table
from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.datatypes import Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.evaluation.comparison import Interval
from kerve.runtime.evaluation.targets import LABELS, WEIGHTS
from kerve.runtime.protocol.evaluation import datatype_of
from kerve.runtime.protocol.oip_client import to_tensor
from kerve.runtime.signature import Signature

__all__ = [
    "Compared",
    "Difference",
    "Evaluated",
    "Interval",
    "Promotion",
    "Recorded",
    "Requirement",
    "batches",
    "decode",
    "decode_difference",
    "decode_promotion",
    "decode_record",
    "has_batches",
    "messages",
    "shown",
    "step_of",
]

Data = ArrayLike | Mapping[str, ArrayLike]
Progress = Callable[["Evaluated"], None]
#: Called with a version, the position of a batch's first row, the arrays sent, and the outputs.
Watch = Callable[[str, int, Mapping[str, Array], Mapping[str, Array]], None]

#: Maximum rows and bytes of a message.
MESSAGE_ROWS = 256
MESSAGE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Evaluated:
    """The results of a version on the rows so far."""

    model: str
    version: str
    rows: int
    seconds: float
    rows_per_second: float
    #: With the names and order of `model.evaluate()`; an array if a metric is not a single number.
    results: dict[str, float | Array]
    #: Seconds that the model took for a batch: mean, p50, p90, p99, max.
    latency: dict[str, float]
    final: bool

    def _repr_html_(self) -> str:
        return captioned(f"evaluation of {self.model}", results_table([self]))


@dataclass(frozen=True)
class Difference:
    """The differences between a version and the first one."""

    version: str
    baseline: str
    #: By output: the share of elements for which both predict the same class.
    agreement: dict[str, float]
    #: Positions, from 0, of the first rows with different predicted classes.
    disagreeing_rows: tuple[int, ...]
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Compared:
    """The results of a comparison of versions."""

    results: tuple[Evaluated, ...]
    #: One for each version after the first.
    differences: tuple[Difference, ...]

    def _repr_html_(self) -> str:
        differences = (
            captioned(f"version {each.version} vs. version {each.baseline}", differences_table(each))
            for each in self.differences
        )
        return captioned(f"evaluation of {self.results[0].model}", results_table(self.results), *differences)


@dataclass(frozen=True)
class Recorded:
    """A finished evaluation, as recorded in the repository."""

    #: In RFC 3339 format.
    time: str
    #: The caller.
    peer: str
    #: Fingerprint of the data: equal if the same rows were sent.
    fingerprint: str
    #: The hardware that computed it.
    hardware: str
    evaluated: Evaluated


@dataclass(frozen=True)
class Requirement:
    """A requirement for the promotion of a version."""

    text: str
    holds: bool
    #: The two numbers compared, or why they could not be compared.
    reason: str


@dataclass(frozen=True)
class Promotion:
    """Whether a label was moved, with the requirements."""

    promoted: bool
    requirements: tuple[Requirement, ...]


def results_table(results: Sequence[Evaluated]) -> str:
    """Return results as HTML, with a column for each version."""
    names = dict.fromkeys(name for each in results for name in each.results)
    rows = [(name, *(shown(each.results.get(name, "")) for each in results)) for name in names]
    rows.append(("rows", *(f"{each.rows:,}" for each in results)))
    rows.append(("rows/s", *(f"{each.rows_per_second:,.0f}" for each in results)))
    return table(("metric", *(f"version {each.version}" for each in results)), rows)


def differences_table(difference: Difference) -> str:
    """Return agreement and intervals as HTML."""
    rows = [(f"agreement of {name}", f"{share:.2%}", "") for name, share in difference.agreement.items()]
    rows += [
        (each.metric, f"{each.difference:+.4f}", f"{each.low:+.4f} to {each.high:+.4f}")
        for each in difference.intervals
    ]
    return table(("", "difference", "95 % confidence"), rows)


def shown(value: float | Array | str) -> str:
    """Format a number with four digits, or an array."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else np.array2string(value, precision=4, threshold=6)


def decode_record(message: pb.Record) -> Recorded:
    """Decode a recorded evaluation."""
    return Recorded(
        message.time, message.peer, message.data_fingerprint, message.hardware, decode(message.results)
    )


def decode_promotion(message: pb.PromoteResponse) -> Promotion:
    """Decode the result of a promotion."""
    requirements = (Requirement(each.text, each.holds, each.reason) for each in message.requirements)
    return Promotion(message.promoted, tuple(requirements))


def decode(message: pb.Results) -> Evaluated:
    """Decode the results of a version."""
    return Evaluated(
        message.model,
        message.version,
        message.rows,
        message.seconds,
        message.rows_per_second,
        {each.name: number(each) for each in message.metrics},
        {name: getattr(message.latency, name) for name in ("mean", "p50", "p90", "p99", "max")},
        message.final,
    )


def decode_difference(message: pb.Difference) -> Difference:
    """Decode the differences between two versions."""
    return Difference(
        message.version,
        message.baseline,
        dict(sorted(message.agreement.items())),
        tuple(message.disagreeing_rows),
        tuple(Interval(each.metric, each.difference, each.low, each.high) for each in message.intervals),
    )


def number(metric: pb.Metric) -> float | Array:
    """Return the value of a metric: a number or an array."""
    if not metric.shape:
        return float(metric.values[0])
    return np.array(metric.values).reshape(tuple(metric.shape))


def messages(
    signature: Signature, given: Iterable[Mapping[str, ArrayLike]]
) -> Iterator[dict[str, tuple[str, Array]]]:
    """Yield the arrays of batches with their datatypes, in parts for one message each."""
    for arrays in given:
        yield from parts({name: typed_tensor(signature, name, array) for name, array in arrays.items()})


def has_batches(x: Any) -> bool:
    """Return whether data is an iterable of batches, such as a generator or a dataset, not arrays."""
    return not (isinstance(x, Mapping | Sequence) or hasattr(x, "__array__"))


def step_of(
    given: Iterator[dict[str, ArrayLike]],
) -> tuple[int, Iterator[dict[str, ArrayLike]]]:
    """Return the number of rows of the first batch (0 if there is none), and all batches."""
    first = next(given, None)
    if first is None:
        return 0, given
    shapes = map(np.shape, first.values())
    return max((shape[0] for shape in shapes if shape), default=0), chain([first], given)


def batches(
    signature: Signature, x: Any, y: Data | None, sample_weight: Data | None
) -> Iterator[dict[str, ArrayLike]]:
    """Yield named arrays: once for arrays, per batch for iterables of `(x, y)` or `(x, y, weights)`."""
    if not has_batches(x):
        yield named(signature, x, y, sample_weight)
        return
    if not isinstance(x, Iterable):
        raise InvalidArgumentError(
            f"expected arrays, or batches of (x, y) or (x, y, sample_weight), got a {type(x).__name__}"
        )
    if y is not None or sample_weight is not None:
        raise InvalidArgumentError(
            "if x is a generator or dataset, labels and weights must be in its batches"
        )
    for batch in x:
        if isinstance(batch, Mapping):
            yield named(signature, batch, None, None)
        elif isinstance(batch, tuple | list) and len(batch) in (2, 3):
            yield named(signature, batch[0], batch[1], batch[2] if len(batch) == 3 else None)
        else:
            raise InvalidArgumentError("expected batches of (x, y) or (x, y, sample_weight)")


def named(signature: Signature, x: Data, y: Data | None, sample_weight: Data | None) -> dict[str, ArrayLike]:
    """Return all arrays by the names that the server expects."""
    arrays: dict[str, ArrayLike] = {}
    if isinstance(x, Mapping):
        arrays |= x
    elif len(signature.inputs) == 1:
        arrays[signature.inputs[0].name] = x
    elif isinstance(x, tuple | list) and len(x) == len(signature.inputs):
        arrays |= {spec.name: array for spec, array in zip(signature.inputs, x, strict=True)}
    else:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise InvalidArgumentError(f"the model has several inputs; pass a dict of: {names}")
    outputs = [spec.name for spec in signature.outputs]
    only = outputs[0] if len(outputs) == 1 else None
    arrays |= spread(y, only or LABELS, outputs, "")
    arrays |= spread(sample_weight, f"{only}/{WEIGHTS}" if only else WEIGHTS, outputs, f"/{WEIGHTS}")
    return arrays


def spread(data: Data | None, alone: str, outputs: Sequence[str], suffix: str) -> dict[str, ArrayLike]:
    """Return labels or weights by name: one array, one for each output in their order, or a dict."""
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return {f"{name}{suffix}": array for name, array in data.items()}
    if isinstance(data, tuple | list) and len(data) == len(outputs) > 1:
        return {f"{name}{suffix}": array for name, array in zip(outputs, data, strict=True)}
    return {alone: data}


def typed_tensor(signature: Signature, name: str, array: ArrayLike) -> tuple[str, Array]:
    """Convert an input to the model's datatype, and other arrays to a supported one."""
    for spec in signature.inputs:
        if spec.name == name:
            return spec.datatype, to_tensor(spec, array)
    own = np.asarray(array)
    if own.dtype.name == "bfloat16" or own.dtype == np.longdouble:
        own = own.astype(np.float32)
    own = own.astype(own.dtype.newbyteorder("="), copy=False)
    return datatype_of(own), own


def parts(arrays: Mapping[str, tuple[str, Array]]) -> Iterator[dict[str, tuple[str, Array]]]:
    """Yield the rows of arrays in parts, one for each message."""
    lengths = {len(array) for _, array in arrays.values() if array.ndim}
    rows = max(lengths, default=0)
    bytes_per_row = sum(array.nbytes for _, array in arrays.values()) // max(1, rows)
    step = max(1, min(MESSAGE_ROWS, MESSAGE_BYTES // max(1, bytes_per_row)))
    if len(lengths) != 1 or rows <= step:  # the server reports the error for arrays of different lengths
        yield dict(arrays)
        return
    for start in range(0, rows, step):
        yield {name: (kind, array[start : start + step]) for name, (kind, array) in arrays.items()}
