"""What a source answers to seeded inputs: of sizes, and of values, that it accepts."""

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

#: What libraries say before they say what is wrong.
_ANNOUNCEMENT = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|Exception encountered when calling"
)

#: What is not for the reader: how Keras sets an error in bold, and which node TensorFlow ran.
_CLUTTER = re.compile(r"\x1b\[[0-9;]*m|\{\{[^{}]*\}\} ?| \[Op:\w+\]")

_GOLDEN_ROWS = 4

#: Enough for rows that are padded in each way.
_PADDED_ROWS = 5


class RejectedInputsError(Exception):
    """The source answers to no seeded inputs; the cause says why to the last."""


@dataclass(frozen=True)
class ReferenceRun:
    """Inputs, and what the source answers to them."""

    dataset: Dataset
    answers: Mapping[str, NDArray[Any]]

    @property
    def ordinary(self) -> bool:
        """Whether the inputs are what is usual, and nothing beyond."""
        return not self.dataset.draw.beyond


def compute_reference_runs(model: ir.Model, reference: Reference) -> list[ReferenceRun]:
    """Find sizes of open dimensions, ids and words, that the source accepts, and let it answer twice.

    The first inputs are ordinary; among the second ones are corners of functions (`Draw.beyond`), where the
    source accepts them. The third ones are of other sizes, where there are any to choose, and the last ones
    are those to which the source answers no numbers, where others were found. Raises `RejectedInputsError`.
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
    """Let the source answer at sizes that differ, so that none is taken for another.

    They are odd if it takes such, and no smaller than those before, where windows have room.
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
    """Return answers with more numbers than those given, to fractions of another interval, if there are some.

    NaN where the source has NaN is right, but says nothing of what is computed.
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
    """Yield corners, the most first: a source may overflow on some of them, or divide by nothing."""
    padded = any(domain_of(value).padding is not None for value in model.graph.inputs)
    for beyond in ("near", "close"):
        for emptied in (True, False) if padded else (False,):
            yield _beyond(model, dataset, beyond, emptied=emptied)


def single_row_run(
    reference: Reference, known: Sequence[ReferenceRun], single: Dataset, far: Dataset | None = None
) -> tuple[list[ReferenceRun], str]:
    """Let the source answer to one row, or else say what it makes of it: that is not ours to answer for.

    `known` are its answers to several rows. Where the source accepts them, `far` takes the place of `single`.
    """
    try:
        answered = _accepted(reference, far, like=known[0]) or _answered(reference, single)
    except Exception as error:  # noqa: BLE001  # whatever the source says to it
        return (
            [],
            f"the source model fails on one row ({first_error_line(error)}); nothing was compared there",
        )
    for name, answer in answered.answers.items():
        usual = known[0].answers[name]
        if not _alike(
            answer, [each.answers[name] for each in known], [_rows(each.dataset) for each in known]
        ):
            return [], (
                f"the source model answers one row with another shape: output '{name}' is "
                f"{list(np.shape(answer))}, of {_rows(known[0].dataset)} rows {list(np.shape(usual))}; "
                "nothing was compared there"
            )
    return [answered], ""


def _alike(answer: NDArray[Any], known: Sequence[NDArray[Any]], rows: Sequence[int]) -> bool:
    """Whether an answer to one row has the rank of those to several, and one row where they have all."""
    if any(np.ndim(answer) != np.ndim(each) for each in known):
        return False
    by_rows = np.ndim(answer) > 0 and all(len(each) == count for each, count in zip(known, rows, strict=True))
    return not by_rows or len(answer) == 1


def single_row_inputs(model: ir.Model, known: ReferenceRun) -> tuple[Dataset, Dataset | None]:
    """Return seeded inputs of one row: ordinary ones, and those with numbers that are far from 0."""
    single = more_rows(model, known.dataset, 1)
    return single, _beyond(model, single, "far")


def ordinary_run(model: ir.Model, reference: Reference, answered: ReferenceRun) -> ReferenceRun:
    """Return the answers to ordinary inputs of the same sizes."""
    dataset = answered.dataset
    ordinary = more_rows(model, dataset, _rows(dataset), dataset.draw.ordinary)
    return _answered(reference, ordinary)


def _beyond(
    model: ir.Model, dataset: Dataset, beyond: Literal["near", "close", "far"], *, emptied: bool = False
) -> Dataset | None:
    """Return other inputs of the same sizes; None where nothing lies beyond the ordinary ones.

    Nor where fewer digits than float32 has decide what is a tie, or which of large numbers is the largest.
    """
    draw = replace(dataset.draw, beyond=beyond, emptied=emptied)
    if any(basis.narrowest for basis in output_traits(model).values()):
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
    """Return what the source answers; None where it fails, or where its numbers are lost to overflow."""
    if dataset is None:
        return None
    try:
        answered = _answered(reference, dataset)
    except Exception:  # noqa: BLE001  # whatever the source says to it: it need not accept such inputs
        return None
    lost = _finite(like) and not _finite(answered)
    return None if lost else answered


def _finite(answered: ReferenceRun) -> bool:
    return non_finite_share(answered) == 0.0


def non_finite_share(answered: ReferenceRun, *outputs: str) -> float:
    """Return which share of answers is NaN or infinite, of that output which has most of it."""
    arrays = (np.asarray(answered.answers[name]) for name in outputs or answered.answers)
    floats = (array.astype(np.float64) for array in arrays if array.dtype.kind in "fV" and array.size)
    return max((1.0 - float(np.isfinite(array).mean()) for array in floats), default=0.0)


def run_reference(reference: Reference, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Return what the source answers to inputs of the user's; raises `LoadError` where it cannot."""
    try:
        return reference(inputs)
    except Exception as error:
        raise LoadError(
            f"the source model fails on your data ({first_error_line(error)}); give inputs that it accepts"
        ) from error


def golden_runs(model: ir.Model, dataset: Dataset, reference: Reference) -> list[ReferenceRun]:
    """Golden data of the user's: as few rows as a server needs, all where the source takes no fewer."""
    try:
        few = first_rows(model, dataset, _GOLDEN_ROWS)
        return [ReferenceRun(few, reference(few.inputs))]
    except Exception:  # noqa: BLE001  # whatever the source says to it: the whole set is answered next
        return []


def _is_key(value: ir.Value) -> bool:
    """Whether a table or an embedding may look an input up."""
    return value.dtype is not None and (value.dtype.is_integer() or value.dtype == ir.DataType.STRING)


def _leave_room(model: ir.Model, datasets: Iterable[Dataset]) -> bool:
    shapes = ({name: array.shape for name, array in each.inputs.items()} for each in datasets)
    return all(windows_fit(model, each) for each in shapes)


def first_error_line(error: BaseException | None) -> str:
    """Return the first line of an error that does not merely announce one."""
    lines = [line.strip() for line in _CLUTTER.sub("", str(error)).splitlines() if line.strip()]
    return next((line for line in lines if not _ANNOUNCEMENT.match(line)), type(error).__name__)
