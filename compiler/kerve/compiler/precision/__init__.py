"""Reduced precisions, each within an accuracy budget: `apply(model, path, verified, options)`.

reduction.py      float32 graph -> graph of fewer bits, by the table in precisions.py:
                  float16, bfloat16, int8 (planned in int8_plan), int8_dynamic, int4_weights
assessment.py     what that costs, output by output (losses.py) and layer by layer (sensitivity.py)
"""

from __future__ import annotations

from kerve.compiler.precision.applying import Reduced, apply
from kerve.compiler.precision.assessment import losses_of
from kerve.compiler.precision.data import Data
from kerve.compiler.precision.losses import Loss
from kerve.compiler.precision.precisions import PRECISIONS

__all__ = ["PRECISIONS", "Data", "Loss", "Reduced", "apply", "losses_of"]
