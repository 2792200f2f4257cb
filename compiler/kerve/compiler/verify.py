"""`verify_model`: an artifact against the source that it was compiled from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """How an artifact compares with its source."""

    #: One for each output and set of inputs: the fields of `kerve.compiler.verification.Check`, and `passed`.
    checks: Sequence[Mapping[str, Any]]
    #: What a reduced precision costs on the user's data; empty where there is neither.
    losses: Sequence[Mapping[str, Any]] = ()
    #: The first Keras layer that differs, in words; "" where none does.
    divergence: str = ""
    #: Files that are not those that the manifest lists; a server refuses such an artifact.
    altered: Sequence[str] = ()
    #: How the comparison was made, where that needs saying: of outputs that rounding alone moves far.
    remarks: Sequence[str] = ()

    def _repr_html_(self) -> str:
        columns = ("output", "data", "batch_size", "dimensions", "max_abs_error", "max_rel_error", "unequal")
        rows = [tuple(str(check[column]) for column in columns) for check in self.checks]
        losses = [(loss["text"], f"{loss['drop']:.3g}", f"{loss['allowed']:g}") for loss in self.losses]
        failed = sum(not check["passed"] for check in self.checks)
        return captioned(
            f"{failed} of {len(rows)} comparisons are beyond tolerance" if failed else "equal to its source",
            table(tuple(column.replace("_", " ") for column in columns), rows),
            *([table(("what the precision costs", "drop", "allowed"), losses)] if losses else []),
            note="; ".join(filter(None, (self.divergence, *self.remarks))),
        )

    def require_equal(self) -> None:
        """Raise `VerificationError`, or `AccuracyBudgetError` for a precision that loses too much."""
        failed = sum(not check["passed"] for check in self.checks)
        where = f"; {self.divergence}" if self.divergence else ""
        if failed:
            raise VerificationError(f"{failed} of {len(self.checks)} comparisons are beyond tolerance{where}")
        if self.altered:
            raise VerificationError(
                f"{', '.join(self.altered)}: missing, or not the file that was compiled (its SHA-256 is not "
                "the manifest's); copy the artifact again, or compile the model again"
            )
        over = [loss["text"] for loss in self.losses if not loss["passed"]]
        if over:
            raise AccuracyBudgetError(f"the artifact loses more than its budget: {'; '.join(over)}{where}")


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
    """Compare an artifact's answers with its source's, on seeded inputs and on `data`.

    The arguments are those of `compile_model`; `artifact` is the folder of a version. Raises `LoadError` or
    `ConversionError` where there is nothing to compare, and `VerificationError` for the artifact of some
    other model.
    """
    hear = progress_listener(listener)
    with with_files(options if options is not None else VerifyOptions(), data=data) as chosen:
        if isinstance(source, str | Path) and custom_objects is None:
            found = worker.run("verify", hear, source=Path(source), artifact=Path(artifact), options=chosen)
        else:
            from kerve.compiler.pipeline import check  # TensorFlow is here already, with the model

            found = check(source, Path(artifact), chosen, hear, custom_objects, input_signature)
    return Comparison(**found)
