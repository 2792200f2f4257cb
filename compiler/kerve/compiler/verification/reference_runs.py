"""Runs of a source on seeded inputs, of sizes and values that it accepts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.errors import LoadError
from kerve.compiler.progress import steps
from kerve.compiler.verification.data import (
    SIZES,
    Dataset,
    first_rows,
    free_rows,
    more_rows,
    primes_from,
    resized,
    seeded,
)
from kerve.compiler.verification.domains import domain_of
from kerve.compiler.verification.runner import Reference
from kerve.compiler.verification.sampling import INTERVALS, SAMPLING_CONFIGS, samples_padding, special_values
from kerve.compiler.verification.traits import output_traits
from kerve.compiler.verification.windows import windows_fit

__all__ = [
    "ReferenceRun",
    "RejectedInputsError",
    "compute_reference_runs",
    "golden_runs",
    "non_finite_share",
    "ordinary_run",
    "run_reference",
    "single_row_inputs",
    "single_row_run",
]

#: The introductory lines of libraries' error messages, before the cause.
_ANNOUNCEMENT = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|Exception encountered when calling"
)

#: Parts of messages to remove: Keras's escape sequences for bold, and TensorFlow's node names.
_CLUTTER = re.compile(r"\x1b\[[0-9;]*m|\{\{[^{}]*\}\} ?| \[Op:\w+\]")

_GOLDEN_ROWS = 4

#: Enough rows for each kind of padding.
_PADDED_ROWS = 5


class RejectedInputsError(Exception):
    """The source accepts no seeded inputs; the cause is its error for the last ones tried."""


@dataclass(frozen=True)
class ReferenceRun:
    """Inputs and the source's outputs for them."""

    dataset: Dataset
    answers: Mapping[str, NDArray[Any]]

    @property
    def ordinary(self) -> bool:
        """Whether the inputs contain only ordinary values."""
        return not self.dataset.draw.beyond


def compute_reference_runs(model: ir.Model, reference: Reference) -> list[ReferenceRun]:
    """Find sizes of dynamic dimensions, ids and words that the source accepts, and run it.

    The first inputs are ordinary; the second include corner cases (`SamplingConfig.beyond`) if the source
    accepts them. The third have other sizes, if there are dynamic dimensions other than the batch. The last
    are those with NaN or infinity in the outputs, if inputs with more finite outputs were found for the first
    ones. Raises `RejectedInputsError`.
    """
    open_dims = any(
        not isinstance(dim, int) and dim.value != "batch"
        for value in model.graph.inputs
        for dim in (value.shape or ())
    )
    keys = any(_is_key(value) for value in model.graph.inputs)
    draws = SAMPLING_CONFIGS if keys else (SAMPLING_CONFIGS[0], SAMPLING_CONFIGS[-1])
    candidates = list(itertools.product(SIZES if open_dims else SIZES[:1], draws))
    for sizes, draw in candidates:
        try:
            made = list(seeded(model, sizes, draw))
            if open_dims and (sizes, draw) != candidates[-1] and not _leave_room(model, made):
                continue
            return _all(model, reference, made, sizes, open_dims=open_dims)
        except Exception as error:
            if (sizes, draw) == candidates[-1]:
                raise RejectedInputsError from error
    raise AssertionError("candidates is never empty")


def _all(
    model: ir.Model,
    reference: Reference,
    made: Sequence[Dataset],
    sizes: tuple[int, int],
    *,
    open_dims: bool,
) -> list[ReferenceRun]:
    datasets = iter(steps(made, len(made), "seeded data sets, in the source"))
    given = _answered(reference, next(datasets))
    other = next(datasets)
    first = given if _finite(given) else _with_numbers(model, reference, given, sizes)
    if first is not given:
        _, other = seeded(model, sizes, first.dataset.draw)
    corners = (_accepted(reference, each, like=first) for each in _corners(model, other))
    second = next((each for each in corners if each is not None), None) or _answered(reference, other)
    third = _third(model, reference, first, sizes) if open_dims else None
    return [first, second, *([third] if third else []), *([] if first is given else [given])]


def _third(
    model: ir.Model, reference: Reference, first: ReferenceRun, sizes: tuple[int, int]
) -> ReferenceRun | None:
    """Run the source with a different size for each dynamic dimension, so that they cannot be confused.

    They are odd primes if it accepts them, and no smaller than the sizes before, at which windows fit.
    """
    open_dims = len(first.dataset.sizes.keys() - {"batch"})
    odd = list(itertools.islice(primes_from(max(sizes) - 1), open_dims))
    for tried in (odd, odd[:1], sizes[::-1]) if open_dims > 1 else (odd,):
        if answered := _accepted(reference, resized(model, first.dataset, tried), like=first):
            return answered
    return None


def _with_numbers(
    model: ir.Model, reference: Reference, given: ReferenceRun, sizes: tuple[int, int]
) -> ReferenceRun:
    """Return a run with more finite outputs than `given`, on floats from another interval, if there is one.

    NaN where the source has NaN is correct, but verifies little of the computation.
    """
    best = given
    if any(array.dtype.kind == "f" for array in given.dataset.inputs.values()):
        for within in INTERVALS:
            dataset, _ = seeded(model, sizes, replace(given.dataset.draw, within=within))
            found = _accepted(reference, dataset, like=given)
            if found is not None and non_finite_share(found) < non_finite_share(best):
                best = found
    return best


def _corners(model: ir.Model, dataset: Dataset) -> Iterator[Dataset | None]:
    """Yield inputs with corner cases, the most first: some may overflow or divide by zero in the source."""
    padded = any(domain_of(value).padding is not None for value in model.graph.inputs)
    for beyond in ("near", "close"):
        for emptied in (True, False) if padded else (False,):
            yield _beyond(model, dataset, beyond, emptied=emptied)


def single_row_run(
    reference: Reference, known: Sequence[ReferenceRun], single: Dataset, far: Dataset | None = None
) -> tuple[list[ReferenceRun], str]:
    """Run the source on one row; returns the run, or none and a remark if the source itself fails there.

    `known` are its runs on several rows. `far` is used instead of `single` if the source accepts it.
    """
    try:
        answered = _accepted(reference, far, like=known[0]) or _answered(reference, single)
    except Exception as error:  # noqa: BLE001  # the source may raise anything
        return (
            [],
            f"the source model fails on one row ({first_error_line(error)}); one row was not compared",
        )
    for name, answer in answered.answers.items():
        usual = known[0].answers[name]
        if not _alike(
            answer, [each.answers[name] for each in known], [_rows(each.dataset) for each in known]
        ):
            return [], (
                f"the source model returns another shape for one row: output '{name}' has shape "
                f"{list(np.shape(answer))}, for {_rows(known[0].dataset)} rows {list(np.shape(usual))}; "
                "one row was not compared"
            )
    return [answered], ""


def _alike(answer: NDArray[Any], known: Sequence[NDArray[Any]], rows: Sequence[int]) -> bool:
    """Return whether an output for one row matches `known` ones: same rank, and one row if those have all."""
    if any(np.ndim(answer) != np.ndim(each) for each in known):
        return False
    by_rows = np.ndim(answer) > 0 and all(len(each) == count for each, count in zip(known, rows, strict=True))
    return not by_rows or len(answer) == 1


def single_row_inputs(model: ir.Model, known: ReferenceRun) -> tuple[Dataset, Dataset | None]:
    """Return seeded inputs of one row: ordinary ones, and ones with numbers far from 0."""
    single = more_rows(model, known.dataset, 1)
    return single, _beyond(model, single, "far")


def ordinary_run(model: ir.Model, reference: Reference, answered: ReferenceRun) -> ReferenceRun:
    """Run the source on ordinary inputs of the same sizes."""
    dataset = answered.dataset
    ordinary = more_rows(model, dataset, _rows(dataset), dataset.draw.ordinary)
    return _answered(reference, ordinary)


def _beyond(
    model: ir.Model, dataset: Dataset, beyond: Literal["near", "close", "far"], *, emptied: bool = False
) -> Dataset | None:
    """Return inputs of the same sizes with corner cases; None if the inputs have none.

    Also None if outputs are computed in less than float32, since ties and the order of large numbers would
    then depend on rounding, or if the source does not define the order of ties: large numbers tie once they
    saturate an activation.
    """
    draw = replace(dataset.draw, beyond=beyond, emptied=emptied)
    if any(basis.narrowest or basis.tied for basis in output_traits(model).values()):
        return None
    domains = [(value.dtype, domain_of(value)) for value in model.graph.inputs]
    drawn = any(
        samples_padding(domain, draw) or special_values(dtype, domain, draw) for dtype, domain in domains
    )
    rows = free_rows(model, _PADDED_ROWS) if emptied and "batch" in dataset.sizes else _rows(dataset)
    return more_rows(model, dataset, rows, draw) if drawn else None


def _rows(dataset: Dataset) -> int:
    return dataset.sizes.get("batch", 1)


def _answered(reference: Reference, dataset: Dataset) -> ReferenceRun:
    return ReferenceRun(dataset, reference(dataset.inputs))


def _accepted(reference: Reference, dataset: Dataset | None, like: ReferenceRun) -> ReferenceRun | None:
    """Run the source; returns None if it fails, or if outputs overflow that are finite in `like`."""
    if dataset is None:
        return None
    try:
        answered = _answered(reference, dataset)
    except Exception:  # noqa: BLE001  # the source may raise anything: it need not accept such inputs
        return None
    lost = _finite(like) and not _finite(answered)
    return None if lost else answered


def _finite(answered: ReferenceRun) -> bool:
    return non_finite_share(answered) == 0.0


def non_finite_share(answered: ReferenceRun, *outputs: str) -> float:
    """Return the share of NaN and infinity in the output that has the largest share."""
    arrays = (np.asarray(answered.answers[name]) for name in outputs or answered.answers)
    floats = (array.astype(np.float64) for array in arrays if array.dtype.kind in "fV" and array.size)
    return max((1.0 - float(np.isfinite(array).mean()) for array in floats), default=0.0)


def run_reference(reference: Reference, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Run the source on the user's inputs; raises `LoadError` if it fails."""
    try:
        return reference(inputs)
    except Exception as error:
        raise LoadError(
            f"the source model fails on your data ({first_error_line(error)}); give inputs that it accepts"
        ) from error


def golden_runs(model: ir.Model, dataset: Dataset, reference: Reference) -> list[ReferenceRun]:
    """Run the source on the first rows of the user's data, for golden data; empty if it fails on so few."""
    try:
        few = first_rows(model, dataset, _GOLDEN_ROWS)
        return [ReferenceRun(few, reference(few.inputs))]
    except Exception:  # noqa: BLE001  # the source may raise anything: the whole data set is run next
        return []


def _is_key(value: ir.Value) -> bool:
    """Return whether an input may be looked up in a table or an embedding."""
    return value.dtype is not None and (value.dtype.is_integer() or value.dtype == ir.DataType.STRING)


def _leave_room(model: ir.Model, datasets: Iterable[Dataset]) -> bool:
    shapes = ({name: array.shape for name, array in each.inputs.items()} for each in datasets)
    return all(windows_fit(model, each) for each in shapes)


def first_error_line(error: BaseException | None) -> str:
    """Return the first line of an error message that is not introductory."""
    lines = [line.strip() for line in _CLUTTER.sub("", str(error)).splitlines() if line.strip()]
    return next((line for line in lines if not _ANNOUNCEMENT.match(line)), type(error).__name__)
