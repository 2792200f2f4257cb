"""Comparison of the compiled model with its source on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.errors import VerificationError
from kerve.compiler.progress import steps
from kerve.compiler.verification.compare import SMALLEST, Check, Tolerance, compare
from kerve.compiler.verification.data import Dataset, first_rows
from kerve.compiler.verification.distribution import compare_drawn
from kerve.compiler.verification.reference_runs import (
    ReferenceRun,
    RejectedInputsError,
    compute_reference_runs,
    first_error_line,
    golden_runs,
    non_finite_share,
    ordinary_run,
    run_reference,
    single_row_inputs,
    single_row_run,
)
from kerve.compiler.verification.rounding import LEEWAY, MOST, rounding
from kerve.compiler.verification.runner import Reference, Runner
from kerve.compiler.verification.traits import OutputTraits, output_traits

__all__ = ["ReferenceRun", "VerificationResult", "recheck", "run_reference", "verify"]

#: NaN where the source has NaN is correct, but verifies little of the computation.
_NO_NUMBER = (
    "output '{}': all values of the source are NaN or infinity, so hardly anything of it is verified; "
    "give representative inputs with --data FILE.npz"
)
_FEW_NUMBERS = (
    "output '{}': {:.0%} of the source's values are NaN or infinity, of which nothing else is verified; "
    "give representative inputs with --data FILE.npz"
)
_FEW_DIGITS = (
    "output '{}': its values are at most {:.1g} and differ by up to {:.1g}; if numbers that small matter, "
    "let the model return their logarithms, as log_sigmoid and log_softmax do"
)


@dataclass(frozen=True)
class VerificationResult:
    """The checks of a verification and the runs they are based on; the first run is the golden data."""

    checks: tuple[Check, ...]
    answered: tuple[ReferenceRun, ...]
    #: Remarks on how the comparison was made.
    remarks: tuple[str, ...] = ()

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """The golden inputs."""
        return self.answered[0].dataset.inputs

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """The source's outputs for the golden inputs."""
        return self.answered[0].answers

    @property
    def apart(self) -> set[str]:
        """The outputs whose number of rows is not the batch size."""
        return {
            name
            for known in self.answered
            for name, answer in known.answers.items()
            if np.shape(answer)[:1] != (known.dataset.sizes.get("batch"),)
        }

    @property
    def differing(self) -> Mapping[str, NDArray[Any]]:
        """The first inputs with a failed check; the golden inputs if there are none."""
        wrong = [each for each in self.checks if not each.passed]
        for known in self.answered:
            if any(_is_of(each, known.dataset) for each in wrong):
                return known.dataset.inputs
        return self.inputs

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def worst(self) -> float:
        """The largest absolute error of all checks."""
        return max((check.max_abs_error for check in self.checks), default=0.0)


def _is_of(check: Check, dataset: Dataset) -> bool:
    sizes = dict(dataset.sizes)
    about = (dataset.origin, sizes.pop("batch", 0), sizes)
    return (check.data, check.batch_size, dict(check.dimensions)) == about


def verify(
    model: ir.Model, path: Path, reference: Reference, user_data: Iterable[Dataset] = ()
) -> VerificationResult:
    """Compare the ONNX file at `path` (described by `model`) with its source.

    The inputs are seeded ones, with several sizes of every dynamic dimension and with one row, then the
    user's. Random outputs are compared by their distribution, on the first inputs. Raises `VerificationError`
    if either side fails, and `LoadError` if the source does not accept the user's data; differences are left
    to the caller. The tolerance of an output is widened if rounding alone changes it by more than its type's
    tolerance; a remark reports this.
    """
    users = list(user_data)
    answered, remarks = _seeded(model, reference, users)
    answered += [
        ReferenceRun(dataset, run_reference(reference, dataset.inputs))
        for dataset in steps(users, len(users), "your data, in the source")
    ]
    runner, bases = Runner(path), output_traits(model)
    for index, each in enumerate(answered):
        if not each.ordinary and (remark := _undecided(path, runner, each, bases)):
            answered[index] = ordinary_run(model, reference, each)
            remarks.append(remark)
    checks = [check for each in answered for check in _compare(runner, each, bases, {})]
    if wider := _widened(path, answered, checks, remarks):
        checks = [check for each in answered for check in _compare(runner, each, bases, wider)]
    if drawn := [name for name, basis in bases.items() if basis.drawn]:
        checks += compare_drawn(runner, reference, answered[0].dataset, drawn)
    remarks += [remark for name in bases if (remark := _without_number(answered, name))]
    remarks += [remark for name in bases if (remark := _without_digits(answered, checks, name))]
    return VerificationResult(tuple(checks), tuple(answered), tuple(remarks))


def recheck(
    path: Path, answered: Iterable[ReferenceRun], tolerances: Mapping[str, Tolerance] | None = None
) -> VerificationResult:
    """Compare an ONNX file with known outputs of its source.

    An output's tolerance is that of the types it is computed in, unless `tolerances` contains it. Random
    outputs are not compared.
    """
    runner, known = Runner(path), tuple(answered)
    bases = output_traits(ir.load(path))
    each_known = steps(known, len(known), "data sets, compiled")
    checks = [check for each in each_known for check in _compare(runner, each, bases, tolerances or {})]
    return VerificationResult(tuple(checks), known)


def _seeded(
    model: ir.Model, reference: Reference, users: Sequence[Dataset]
) -> tuple[list[ReferenceRun], list[str]]:
    """Return the source's runs on seeded inputs, or else on the user's first rows, and remarks."""
    inputs: tuple[Dataset | None, ...]
    try:
        known = compute_reference_runs(model, reference)
    except RejectedInputsError as error:
        failure = f"the source model fails on random inputs ({first_error_line(error.__cause__)})"
        if not users:
            raise VerificationError(
                f"{failure}, so it cannot be verified; give inputs that it accepts with --data FILE.npz"
            ) from error
        known = golden_runs(model, users[0], reference)
        remarks = [f"{failure}; it was verified on your data only"]
        inputs = (first_rows(model, users[0], 1),)
    else:
        remarks, inputs = [], single_row_inputs(model, known[0])
    if known and "batch" in known[0].dataset.sizes:
        single, remark = single_row_run(reference, known, *inputs)
        known += single
        remarks += [remark] if remark else []
    return known, remarks


def _compare(
    runner: Runner,
    known: ReferenceRun,
    bases: Mapping[str, OutputTraits],
    tolerances: Mapping[str, Tolerance],
) -> Iterable[Check]:
    for name, got in runner(known.dataset.inputs).items():
        if bases[name].drawn:
            continue
        want = _as_onnxruntime_gives(np.asarray(known.answers[name]))
        yield compare(
            _as_onnxruntime_gives(got),
            want,
            tolerances.get(name) or _tolerance(want, bases[name]),
            data=known.dataset.origin,
            sizes=known.dataset.sizes,
            output=name,
        )


def _tolerance(want: NDArray[Any], basis: OutputTraits) -> Tolerance:
    return Tolerance.of(want.dtype, "" if basis.narrowest is None else basis.narrowest.name.lower())


def _without_number(answered: Iterable[ReferenceRun], output: str) -> str:
    """Return a remark if an output contains NaN or infinity for all inputs, or ""."""
    least = min(non_finite_share(each, output) for each in answered)
    return "" if least == 0.0 else (_NO_NUMBER if least == 1.0 else _FEW_NUMBERS).format(output, least)


def _without_digits(answered: Iterable[ReferenceRun], checks: Iterable[Check], output: str) -> str:
    """Return a remark if an output of small numbers passed only by the tolerance for larger ones, or "".

    ONNX Runtime's Sigmoid, for example, is accurate to 6e-8.
    """
    passed = [each for each in checks if each.output == output and each.passed and not each.drawn]
    for known in answered:
        largest = _largest(np.asarray(known.answers[output]))
        worst = max((each.max_abs_error for each in passed if _is_of(each, known.dataset)), default=0.0)
        if 0.0 < largest < SMALLEST and any(worst > (each.rtol + each.atol) * largest for each in passed):
            return _FEW_DIGITS.format(output, largest, worst)
    return ""


def _largest(answer: NDArray[Any]) -> float:
    if answer.dtype.kind not in "fV":
        return 0.0
    sizes = np.abs(answer.astype(np.float64))
    return float(sizes.max(initial=0.0, where=np.isfinite(sizes)))


def _undecided(path: Path, runner: Runner, known: ReferenceRun, bases: Mapping[str, OutputTraits]) -> str:
    """Return a remark if rounding explains the differences on inputs with corner cases, or ""."""
    if not (differing := _differing(_compare(runner, known, bases, {}))):
        return ""
    moved = rounding(path, [known.dataset.inputs])
    wider = {
        name: Tolerance(check.rtol, max(check.atol, LEEWAY * moved.get(name, 0.0)), SMALLEST)
        for name, check in differing.items()
    }
    open_to_doubt = {name for name in differing if moved.get(name, 0.0) > MOST}
    if any(
        not check.passed and check.output not in open_to_doubt
        for check in _compare(runner, known, bases, wider)
    ):
        return ""
    name = max(differing, key=lambda each: moved.get(each, 0.0))
    return (
        f"output '{name}': on inputs that are {known.dataset.draw.what}, rounding alone changes it by "
        f"{moved.get(name, 0.0):.1g} of its range; it was compared on ordinary inputs only"
    )


def _differing(checks: Iterable[Check]) -> dict[str, Check]:
    return {each.output: each for each in checks if each.unequal and each.atol and not each.problem}


def _widened(
    path: Path, answered: Iterable[ReferenceRun], checks: Iterable[Check], remarks: list[str]
) -> dict[str, Tolerance]:
    """Return wider tolerances for outputs that differ, where rounding exceeds the tolerance of their type.

    Small numbers may consist of rounding errors only: they get the tolerance of numbers of the order of 1.
    """
    if not (differing := _differing(checks)):
        return {}
    inputs = [each.dataset.inputs for each in answered]
    moved = rounding(path, inputs)
    by_one = rounding(path, inputs, 1.0) if any(moved.get(name, 0.0) > MOST for name in differing) else {}
    wider = {}
    for name, check in differing.items():
        movement = moved.get(name, 0.0)
        remark = f"output '{name}': rounding alone changes it by {movement:.1g} of its range"
        if movement > MOST:
            if by_one[name] <= MOST:
                wider[name] = Tolerance(check.rtol, max(check.atol, LEEWAY * by_one[name]))
            remarks.append(f"{remark}, so it cannot be verified on these inputs; try --data FILE.npz")
        elif LEEWAY * movement > check.atol:
            atol = float(f"{LEEWAY * movement:.0e}")
            wider[name] = Tolerance(check.rtol, atol, SMALLEST)
            remarks.append(f"{remark}; the tolerance was {atol:.1g} instead of {check.atol:.1g}")
    return wider


def _as_onnxruntime_gives(array: NDArray[Any]) -> NDArray[Any]:
    """Convert strings, as bytes or str, to str objects; other arrays are unchanged."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
    return np.array(texts, dtype=object).reshape(array.shape)
