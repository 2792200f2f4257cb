"""Run the compiled model and its source on the same inputs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.errors import LoadError, VerificationError
from kerve.compiler.progress import steps
from kerve.compiler.verification.basis import Basis, bases_of
from kerve.compiler.verification.compare import Check, Tolerance, compare
from kerve.compiler.verification.data import DRAWS, SIZES, Dataset, first_rows, seeded
from kerve.compiler.verification.distribution import compare_drawn
from kerve.compiler.verification.rounding import LEEWAY, MOST, rounding
from kerve.compiler.verification.runner import Reference, Runner
from kerve.compiler.verification.windows import leave_room

__all__ = ["Answered", "Verified", "ask", "recheck", "verify"]

#: What libraries say before they say what is wrong.
_ANNOUNCEMENT = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|Exception encountered when calling"
)

#: How Keras sets an error in bold, for terminals.
_EMPHASIS = re.compile(r"\x1b\[[0-9;]*m")

_GOLDEN_ROWS = 4


class _RefusedError(Exception):
    """The source answers to no seeded inputs; the cause says why to the last."""


@dataclass(frozen=True)
class Answered:
    """Inputs, and what the source answers to them."""

    dataset: Dataset
    answers: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Verified:
    """The record of a verification, and the data it rests on; the first set is kept as golden."""

    checks: tuple[Check, ...]
    answered: tuple[Answered, ...]
    #: What there is to say of how the comparison was made.
    remarks: tuple[str, ...] = ()

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """The golden inputs."""
        return self.answered[0].dataset.inputs

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """The source's answers to the golden inputs."""
        return self.answered[0].answers

    @property
    def apart(self) -> set[str]:
        """The outputs whose number of rows is not the batch's."""
        return {
            name
            for known in self.answered
            for name, answer in known.answers.items()
            if np.shape(answer)[:1] != (known.dataset.sizes.get("batch"),)
        }

    @property
    def differing(self) -> Mapping[str, NDArray[Any]]:
        """The first inputs to which an answer is wrong; the golden ones when none is."""
        wrong = [each for each in self.checks if not each.passed]
        for known in self.answered:
            sizes = dict(known.dataset.sizes)
            about = (known.dataset.origin, sizes.pop("batch", 0), sizes)
            if any((each.data, each.batch_size, dict(each.dimensions)) == about for each in wrong):
                return known.dataset.inputs
        return self.inputs

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

    The inputs are seeded ones at two sizes of every open dimension, then the user's. Outputs that are drawn
    anew on each call are compared by their distribution, on the first inputs. Raises `VerificationError` when
    either side cannot answer, and `LoadError` when the source does not take the user's data; a difference is
    for the caller to judge. Answers that differ by more than their type allows may do so by what rounding
    alone does to them; a remark tells of it.
    """
    users = list(user_data)
    remarks: list[str] = []
    try:
        answered = _answered(model, reference)
    except _RefusedError as error:
        said = f"the source model fails on random inputs ({_reason(error.__cause__)})"
        if not users:
            raise VerificationError(
                f"{said}, so nothing can be proven; give inputs that it accepts with --data FILE.npz"
            ) from error
        answered = _few_rows(model, users[0], reference)
        remarks.append(f"{said}; it is proven on your data alone")
    answered += [
        Answered(dataset, ask(reference, dataset.inputs))
        for dataset in steps(users, len(users), "your data, in the source")
    ]
    runner, bases = Runner(path), bases_of(model)
    checks = [check for each in answered for check in _compare(runner, each, bases, {})]
    if wider := _widened(path, answered, checks, remarks):
        checks = [check for each in answered for check in _compare(runner, each, bases, wider)]
    if drawn := [name for name, basis in bases.items() if basis.drawn]:
        checks += compare_drawn(runner, reference, answered[0].dataset, drawn)
    return Verified(tuple(checks), tuple(answered), tuple(remarks))


def recheck(
    path: Path, answered: Iterable[Answered], tolerances: Mapping[str, Tolerance] | None = None
) -> Verified:
    """Compare an ONNX file with answers that are known.

    An output's tolerance is that of the types it is computed in, unless `tolerances` names the output. No
    answer is known to an output that is drawn anew on each call.
    """
    runner, known = Runner(path), tuple(answered)
    bases = bases_of(ir.load(path))
    each_known = steps(known, len(known), "data sets, compiled")
    checks = [check for each in each_known for check in _compare(runner, each, bases, tolerances or {})]
    return Verified(tuple(checks), known)


def ask(reference: Reference, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Return what the source answers to inputs of the user's; raises `LoadError` where it cannot."""
    try:
        return reference(inputs)
    except Exception as error:
        raise LoadError(
            f"the source model fails on your data ({_reason(error)}); give inputs that it accepts"
        ) from error


def _answered(model: ir.Model, reference: Reference) -> list[Answered]:
    """Find sizes of open dimensions, ids and words, that the source accepts."""
    open_dims = any(
        not isinstance(dim, int) and dim.value != "batch"
        for value in model.graph.inputs
        for dim in (value.shape or ())
    )
    keys = any(_is_key(value) for value in model.graph.inputs)
    draws = DRAWS if keys else (DRAWS[0], DRAWS[-1])
    candidates = list(itertools.product(SIZES if open_dims else SIZES[:1], draws))
    for sizes, draw in candidates:
        try:
            made = list(seeded(model, sizes, draw))
            if open_dims and (sizes, draw) != candidates[-1] and not _leave_room(model, made):
                continue
            datasets = steps(made, 2, "seeded data sets, in the source")
            return [Answered(dataset, reference(dataset.inputs)) for dataset in datasets]
        except Exception as error:
            if (sizes, draw) == candidates[-1]:
                raise _RefusedError from error
    raise AssertionError("candidates is never empty")


def _few_rows(model: ir.Model, dataset: Dataset, reference: Reference) -> list[Answered]:
    """Golden data of the user's: as few rows as a server needs, all where the source takes no fewer."""
    try:
        few = first_rows(model, dataset, _GOLDEN_ROWS)
        return [Answered(few, reference(few.inputs))]
    except Exception:  # noqa: BLE001  # whatever the source says to it: the whole set is answered next
        return []


def _is_key(value: ir.Value) -> bool:
    """Whether a table or an embedding may look an input up."""
    return value.dtype is not None and (value.dtype.is_integer() or value.dtype == ir.DataType.STRING)


def _leave_room(model: ir.Model, datasets: Iterable[Dataset]) -> bool:
    shapes = ({name: array.shape for name, array in each.inputs.items()} for each in datasets)
    return all(leave_room(model, each) for each in shapes)


def _compare(
    runner: Runner, known: Answered, bases: Mapping[str, Basis], tolerances: Mapping[str, Tolerance]
) -> Iterable[Check]:
    for name, got in runner(known.dataset.inputs).items():
        if bases[name].drawn:
            continue
        narrowest = bases[name].narrowest
        want = _as_onnxruntime_gives(np.asarray(known.answers[name]))
        yield compare(
            _as_onnxruntime_gives(got),
            want,
            tolerances.get(name)
            or Tolerance.of(want.dtype, "" if narrowest is None else narrowest.name.lower()),
            data=known.dataset.origin,
            sizes=known.dataset.sizes,
            output=name,
        )


def _widened(
    path: Path, answered: Iterable[Answered], checks: Iterable[Check], remarks: list[str]
) -> dict[str, Tolerance]:
    """Return the tolerances of outputs that differ, where rounding explains more than their type's do."""
    differing = {each.output: each for each in checks if each.unequal and each.atol and not each.problem}
    if not differing:
        return {}
    moved = rounding(path, [each.dataset.inputs for each in answered])
    wider = {}
    for name, check in differing.items():
        movement = moved.get(name, 0.0)
        said = f"output '{name}': rounding alone moves it by {movement:.1g} of its range"
        if movement > MOST:
            remarks.append(f"{said}, so that nothing can be proven on these inputs; try --data FILE.npz")
        elif LEEWAY * movement > check.atol:
            atol = float(f"{LEEWAY * movement:.0e}")
            wider[name] = Tolerance(check.rtol, atol)
            remarks.append(f"{said}; it was held to {atol:.1g}, not to {check.atol:.1g}")
    return wider


def _as_onnxruntime_gives(array: NDArray[Any]) -> NDArray[Any]:
    """Strings as str objects, whether they came as bytes or as str."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
    return np.array(texts, dtype=object).reshape(array.shape)


def _reason(error: BaseException | None) -> str:
    """Return the first line of an error that does not merely announce one."""
    lines = [line.strip() for line in _EMPHASIS.sub("", str(error)).splitlines() if line.strip()]
    return next((line for line in lines if not _ANNOUNCEMENT.match(line)), type(error).__name__)
