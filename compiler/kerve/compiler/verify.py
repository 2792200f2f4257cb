"""`verify_model`: compare an artifact with the source that it was compiled from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerve.cli.html import captioned, table
from kerve.compiler import worker
from kerve.compiler.errors import AccuracyBudgetError, VerificationError
from kerve.compiler.input_data import with_files
from kerve.compiler.notebook import progress_listener
from kerve.compiler.options import VerifyOptions
from kerve.compiler.progress import Listener

__all__ = ["Comparison", "verify_model"]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing an artifact with its source."""

    #: One for each output and set of inputs: the fields of `kerve.compiler.verification.Check`, and `passed`.
    checks: Sequence[Mapping[str, Any]]
    #: The losses of a reduced precision; empty for float32.
    losses: Sequence[Mapping[str, Any]] = ()
    #: A description of the first Keras layer that differs; "" if none does.
    divergence: str = ""
    #: Files that are missing or differ from the manifest's hashes; a server refuses such an artifact.
    altered: Sequence[str] = ()
    #: Remarks on the comparison, for example of outputs that are sensitive to rounding.
    remarks: Sequence[str] = ()

    def _repr_html_(self) -> str:
        columns = ("output", "data", "batch_size", "dimensions", "max_abs_error", "max_rel_error", "unequal")
        rows = [tuple(str(check[column]) for column in columns) for check in self.checks]
        losses = [(loss["text"], f"{loss['drop']:.3g}", f"{loss['allowed']:g}") for loss in self.losses]
        equal = "within its accuracy budget" if self.losses else "equal to its source"
        return captioned(
            "; ".join(map(str, self._errors())) or equal,
            table(tuple(column.replace("_", " ") for column in columns), rows),
            *([table(("loss due to the reduced precision", "drop", "allowed"), losses)] if losses else []),
            note="; ".join(self.remarks),
        )

    def require_equal(self) -> None:
        """Raise `VerificationError` if they differ, `AccuracyBudgetError` if a precision loses too much."""
        for error in self._errors():
            raise error

    def _errors(self) -> Iterator[VerificationError | AccuracyBudgetError]:
        failed = sum(not check["passed"] for check in self.checks)
        where = f"; {self.divergence}" if self.divergence else ""
        if failed:
            yield VerificationError(f"{failed} of {len(self.checks)} comparisons are beyond tolerance{where}")
        if self.altered:
            yield VerificationError(
                f"{', '.join(self.altered)}: missing or changed since the compile (the SHA-256 differs from "
                "the manifest's); copy the artifact again, or compile the model again"
            )
        over = [loss["text"] for loss in self.losses if not loss["passed"]]
        if over:
            yield AccuracyBudgetError(f"the artifact loses more than its budget: {'; '.join(over)}{where}")


def verify_model(
    source: Any,
    artifact: str | Path,
    *,
    options: VerifyOptions | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    input_signature: Any = None,
    data: Any = None,
    listener: Listener | None = None,
) -> Comparison:
    """Compare an artifact's outputs with its source's, on seeded inputs and on `data`.

    The arguments are those of `compile_model`; `artifact` is the folder of a version. Raises `LoadError` or
    `ConversionError` if the source or artifact cannot be loaded or converted, and `VerificationError` if the
    artifact was compiled from another model.
    """
    hear = progress_listener(listener)
    with with_files(options if options is not None else VerifyOptions(), data=data) as chosen:
        if isinstance(source, str | Path) and custom_objects is None:
            found = worker.run("verify", hear, source=Path(source), artifact=Path(artifact), options=chosen)
        else:
            from kerve.compiler.pipeline import check  # imports TensorFlow, as the caller's model already did

            found = check(source, Path(artifact), chosen, hear, custom_objects, input_signature)
    return Comparison(**found)
