"""Augmentation layers, which do not change images at inference."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

_AUGMENTATIONS = (
    "AugMix",
    "CutMix",
    "Equalization",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "Solarization",
)


@HANDLERS.register(*(f"layers.{name}" for name in _AUGMENTATIONS), typed=True)
def augmentation(g: Lowering, layer: Any, data: Any, training: bool = False) -> Any:
    """Lower the layer without a random transformation: to a cast at most.

    Its `call` would draw one even at inference. Images with labels or boxes, and calls with
    training=True, are replayed.
    """
    if training or not isinstance(data, ir.Value) or rank(data) != 4:
        return NotImplemented
    return g.call(layer.transform_images, data, transformation=None, training=False)
