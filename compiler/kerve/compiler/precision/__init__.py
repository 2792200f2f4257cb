"""Reduced precisions, each within an accuracy budget: `apply(model, path, verified, reference, options)`.

reduction.py      converts a float32 graph, by the table in precisions.py:
                  float16, bfloat16, int8 (planned in int8_plan), int8_dynamic, int4_weights
assessment.py     measures the loss per output (losses.py) and per layer (sensitivity.py)
rechecking.py     does the same for an existing artifact
"""

from __future__ import annotations

from kerve.compiler.precision.applying import ReducedModel, apply
from kerve.compiler.precision.losses import Loss
from kerve.compiler.precision.precisions import PRECISIONS
from kerve.compiler.precision.rechecking import RecheckResult, first_changed_layer, recheck_reduced

__all__ = [
    "PRECISIONS",
    "Loss",
    "RecheckResult",
    "ReducedModel",
    "apply",
    "first_changed_layer",
    "recheck_reduced",
]
