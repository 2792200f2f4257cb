"""Run the compiled model and its source on the same inputs."""

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

#: NaN where the source has NaN is right, but says nothing of what is computed elsewhere.
_NO_NUMBER = (
    "output '{}': the source answers it by NaN and infinity alone, so that hardly anything is proven of it; "
    "give inputs like those to come with --data FILE.npz"
)
_FEW_NUMBERS = (
    "output '{}': the source answers {:.0%} of it by NaN and infinity, of which nothing else is proven; "
    "give inputs like those to come with --data FILE.npz"
)
_FEW_DIGITS = (
    "output '{}': it is {:.1g} at most, and differs by up to {:.1g}; where such small numbers count, let the "
    "model give their logarithms, as log_sigmoid and log_softmax do"
)


@dataclass(frozen=True)
class VerificationResult:
    """The record of a verification, and the data it rests on; the first set is kept as golden."""

    checks: tuple[Check, ...]
    answered: tuple[ReferenceRun, ...]
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
            if any(_is_of(each, known.dataset) for each in wrong):
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


def _is_of(check: Check, dataset: Dataset) -> bool:
    sizes = dict(dataset.sizes)
    about = (dataset.origin, sizes.pop("batch", 0), sizes)
    return (check.data, check.batch_size, dict(check.dimensions)) == about


def verify(
    model: ir.Model, path: Path, reference: Reference, user_data: Iterable[Dataset] = ()
) -> VerificationResult:
    """Compare the ONNX file at `path` (described by `model`) with its source.

    The inputs are seeded ones at two sizes of every open dimension and at one row, then the user's. Outputs
    that are drawn anew on each call are compared by their distribution, on the first inputs. Raises
    `VerificationError` when either side cannot answer, and `LoadError` when the source does not take the
    user's data; a difference is for the caller to judge. Answers that differ by more than their type allows
    may do so by what rounding alone does to them; a remark tells of it.
    """
    users = list(user_data)
    answered, remarks = _seeded(model, reference, users)
    answered += [
        ReferenceRun(dataset, run_reference(reference, dataset.inputs))
        for dataset in steps(users, len(users), "your data, in the source")
    ]
    runner, bases = Runner(path), output_traits(model)
    for index, each in enumerate(answered):
        if not each.ordinary and (said := _undecided(path, runner, each, bases)):
            answered[index] = ordinary_run(model, reference, each)
            remarks.append(said)
    checks = [check for each in answered for check in _compare(runner, each, bases, {})]
    if wider := _widened(path, answered, checks, remarks):
        checks = [check for each in answered for check in _compare(runner, each, bases, wider)]
    if drawn := [name for name, basis in bases.items() if basis.drawn]:
        checks += compare_drawn(runner, reference, answered[0].dataset, drawn)
    remarks += [said for name in bases if (said := _without_number(answered, name))]
    remarks += [said for name in bases if (said := _without_digits(answered, checks, name))]
    return VerificationResult(tuple(checks), tuple(answered), tuple(remarks))


def recheck(
    path: Path, answered: Iterable[ReferenceRun], tolerances: Mapping[str, Tolerance] | None = None
) -> VerificationResult:
    """Compare an ONNX file with answers that are known.

    An output's tolerance is that of the types it is computed in, unless `tolerances` names the output. No
    answer is known to an output that is drawn anew on each call.
    """
    runner, known = Runner(path), tuple(answered)
    bases = output_traits(ir.load(path))
    each_known = steps(known, len(known), "data sets, compiled")
    checks = [check for each in each_known for check in _compare(runner, each, bases, tolerances or {})]
    return VerificationResult(tuple(checks), known)


def _seeded(
    model: ir.Model, reference: Reference, users: Sequence[Dataset]
) -> tuple[list[ReferenceRun], list[str]]:
    """Return what the source answers to inputs that are not the user's, and what there is to say of it."""
    inputs: tuple[Dataset | None, ...]
    try:
        known = compute_reference_runs(model, reference)
    except RejectedInputsError as error:
        said = f"the source model fails on random inputs ({first_error_line(error.__cause__)})"
        if not users:
            raise VerificationError(
                f"{said}, so nothing can be proven; give inputs that it accepts with --data FILE.npz"
            ) from error
        known, remarks = golden_runs(model, users[0], reference), [f"{said}; it is proven on your data alone"]
        inputs = (first_rows(model, users[0], 1),)
    else:
        remarks, inputs = [], single_row_inputs(model, known[0])
    if known and "batch" in known[0].dataset.sizes:
        single, said = single_row_run(reference, known, *inputs)
        known += single
        remarks += [said] if said else []
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
    """Say that an output has no numbers, or not everywhere, to any inputs; "" where it has."""
    least = min(non_finite_share(each, output) for each in answered)
    return "" if least == 0.0 else (_NO_NUMBER if least == 1.0 else _FEW_NUMBERS).format(output, least)


def _without_digits(answered: Iterable[ReferenceRun], checks: Iterable[Check], output: str) -> str:
    """Say that small numbers of an output are equal by what is allowed of larger ones alone; "" if none are.

    ONNX Runtime's Sigmoid, for one, is right to 6e-8.
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
    """Say where rounding explains what differs on inputs beyond the ordinary; "" where it does not."""
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
        f"output '{name}': where inputs are {known.dataset.draw.what}, rounding alone moves it by "
        f"{moved.get(name, 0.0):.1g} of its range; it was compared on ordinary ones alone"
    )


def _differing(checks: Iterable[Check]) -> dict[str, Check]:
    return {each.output: each for each in checks if each.unequal and each.atol and not each.problem}


def _widened(
    path: Path, answered: Iterable[ReferenceRun], checks: Iterable[Check], remarks: list[str]
) -> dict[str, Tolerance]:
    """Return the tolerances of outputs that differ, where rounding explains more than their type's do.

    Of small numbers it may leave nothing: they are held to what it leaves of numbers of the order of 1.
    """
    if not (differing := _differing(checks)):
        return {}
    inputs = [each.dataset.inputs for each in answered]
    moved = rounding(path, inputs)
    by_one = rounding(path, inputs, 1.0) if any(moved.get(name, 0.0) > MOST for name in differing) else {}
    wider = {}
    for name, check in differing.items():
        movement = moved.get(name, 0.0)
        said = f"output '{name}': rounding alone moves it by {movement:.1g} of its range"
        if movement > MOST:
            if by_one[name] <= MOST:
                wider[name] = Tolerance(check.rtol, max(check.atol, LEEWAY * by_one[name]))
            remarks.append(f"{said}, so that nothing can be proven on these inputs; try --data FILE.npz")
        elif LEEWAY * movement > check.atol:
            atol = float(f"{LEEWAY * movement:.0e}")
            wider[name] = Tolerance(check.rtol, atol, SMALLEST)
            remarks.append(f"{said}; it was held to {atol:.1g}, not to {check.atol:.1g}")
    return wider


def _as_onnxruntime_gives(array: NDArray[Any]) -> NDArray[Any]:
    """Strings as str objects, whether they came as bytes or as str."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
    return np.array(texts, dtype=object).reshape(array.shape)
