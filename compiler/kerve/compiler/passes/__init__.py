"""The optimisation of a lowered graph: `optimize(model)`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from kerve.compiler.errors import CompileError
from kerve.compiler.passes.avoid_slow_kernels import AvoidSlowKernels
from kerve.compiler.passes.convolve_as_images import ConvolveAsImages
from kerve.compiler.passes.convolve_means import ConvolveMeans
from kerve.compiler.passes.drop_identities import DropIdentities
from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.fold_affine import FoldAffine
from kerve.compiler.passes.fold_constants import FoldConstants
from kerve.compiler.passes.fuse_pads import FusePads
from kerve.compiler.passes.layout import Layout
from kerve.compiler.passes.merge_casts import MergeCasts
from kerve.compiler.passes.merge_views import MergeViews
from kerve.compiler.passes.name import NameCanonically
from kerve.compiler.passes.name_rows import NameRows
from kerve.compiler.passes.precise_kernels import PreciseKernels
from kerve.compiler.passes.queries import location
from kerve.compiler.passes.share_constants import ShareConstants
from kerve.compiler.passes.share_transposes import ShareTransposes
from kerve.compiler.passes.shield_kernels import ShieldKernels
from kerve.compiler.passes.strip_metadata import StripMetadata

__all__ = ["Observer", "Step", "optimize"]


def _pipeline() -> list[ir.passes.PassBase]:
    """Return all passes, in order."""
    return [
        # normalize: one flat graph, constants as initializers, inferred shapes
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.ShapeInferencePass(check_type=False, strict_mode=False),
        FoldConstants(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        # remove redundant nodes
        DropIdentities(),
        MergeCasts(),
        MergeViews(),
        common.RemoveUnusedNodesPass(),
        ShareConstants(),
        common.CommonSubexpressionEliminationPass(),
        # fold weights, arrange layouts, then fold what Transposes separated before
        FoldAffine(),
        Layout(),
        MergeViews(transposes=True),
        FoldAffine(),
        FusePads(),
        # replace operators whose CPU kernels are slow or imprecise
        PreciseKernels(),
        ConvolveAsImages(),
        AvoidSlowKernels(),
        ConvolveMeans(),
        # clean up
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        ShieldKernels(),
        ShareTransposes(),
        ShareConstants(),
        common.CommonSubexpressionEliminationPass(),
        common.TopologicalSortPass(),
        StripMetadata(),
        NameRows(),
        NameCanonically(),
    ]


@dataclass(frozen=True, kw_only=True)
class Step:
    """The result of one pass."""

    name: str
    model: ir.Model
    nodes_before: int
    nodes_after: int
    #: Removed and added nodes, by layer and operator.
    removed: Counter[str]
    added: Counter[str]
    #: Whether the pass reports a change, even only of a constant.
    modified: bool
    seconds: float
    #: Remarks of the pass, on nodes that it left unchanged.
    notes: tuple[str, ...]


#: Called with the model after each pass, to report on it or to dump it.
Observer = Callable[[Step], None]


def optimize(model: ir.Model, observer: Observer | None = None) -> ir.Model:
    """Optimize a model in place, without changing what it computes, and return it.

    Inputs and outputs keep their names, types and shapes (a dynamic batch size is named `batch`); weights
    keep their names. `observer` is called after each pass. The result depends on the model alone: the same
    model gives the same bytes.

    Raises `onnx_ir.passes.PassError` naming the pass when one fails, which is a defect of kerve, and the
    observer's `CompileError` unchanged.
    """
    passes = [_Observed(one, observer) for one in _pipeline()] if observer else _pipeline()
    try:
        return ir.passes.Sequential(*passes)(model).model
    except ir.passes.PassError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, CompileError):
                raise cause from cause.__cause__
            cause = cause.__cause__
        raise


class _Observed(ir.passes.InPlacePass):
    """A pass that calls an observer after it has run."""

    def __init__(self, inner: ir.passes.PassBase, observer: Observer) -> None:
        super().__init__()
        self._inner = inner
        self._observer = observer

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass and call the observer."""
        before, begin = _places(model), time.perf_counter()
        result = self._inner(model)
        seconds = time.perf_counter() - begin
        after = _places(result.model)
        notes = tuple(self._inner.notes) if isinstance(self._inner, ExplainedPass) else ()
        name = type(self._inner).__name__.removesuffix("Pass")
        self._observer(
            Step(
                name=name,
                model=result.model,
                nodes_before=before.total(),
                nodes_after=after.total(),
                removed=before - after,
                added=after - before,
                modified=result.modified,
                seconds=seconds,
                notes=notes,
            )
        )
        return result


def _places(model: ir.Model) -> Counter[str]:
    return Counter(location(node) for node in ir.traversal.RecursiveGraphIterator(model.graph))
