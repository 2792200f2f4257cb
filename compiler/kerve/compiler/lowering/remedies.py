"""Remedies, in error messages, for operators of TensorFlow that have no ONNX form."""

from __future__ import annotations

import traceback

__all__ = ["COLLECT", "OTHERWISE", "remedy_for", "remedy_for_failure"]

OTHERWISE = (
    "write it with operations of keras.ops that have an ONNX form, or leave it out of the served model"
)

#: Parts of messages of Keras and TensorFlow, and what to do about code that `model.predict()` may well run.
_CAUSES = {
    "KerasTensor cannot be used as input": (
        "TensorFlow's code takes no tensor of the model that is not among its arguments: pass it as one "
        "(as a loop variable of keras.ops.while_loop), or make it a constant"
    ),
    "as a Python `bool`": "choose with keras.ops.where or keras.ops.cond, not by a Python condition",
}

_RUN = "it must run in TensorFlow's graphs: check that model.predict() works without run_eagerly"

COLLECT = "collect with keras.ops.scan or tf.TensorArray, or fix the size of the axis that it iterates over"

_FILE = "compile the .keras or .h5 file of the model, or leave it out of the served model"
_PIXELS = ("decoding images", "choose or save a signature that takes pixels")

#: Purpose of operators, and what to do instead.
_INSTEAD = {
    "BoostedTreesBucketize": ("Discretization layers of TensorFlow 2.3 to 2.5", _FILE),
    "DecodeBmp": _PIXELS,
    "DecodeGif": _PIXELS,
    "DecodeImage": _PIXELS,
    "DecodeJpeg": _PIXELS,
    "DecodePng": _PIXELS,
    "ImageProjectiveTransformV3": ("augmentation layers, which only training needs", _FILE),
    "SparseCrossHashed": ("HashedCrossing layers", _FILE),
    "_SwitchN": ("tf.switch_case", "write it with tf.case or tf.cond"),
    "TensorListSplit": ("TensorArray.split", "split the tensor with tf.split or tf.reshape"),
}


def remedy_for(operator: str, failure: str | None = None) -> tuple[str, str]:
    """Return the reason why an operator has no ONNX form (`failure`: tf2onnx's error), and a remedy."""
    purpose, remedy = _INSTEAD.get(operator, ("", OTHERWISE))
    name = f"{operator} ({purpose})" if purpose else operator
    if failure is not None:
        return f"tf2onnx fails to convert TensorFlow's {name} ({failure})", remedy
    return f"no ONNX operator stands for TensorFlow's {name}", remedy


def remedy_for_failure(error: Exception) -> str:
    """Return the remedy if code fails while it is traced, or if its trace cannot be converted."""
    for part, remedy in _CAUSES.items():
        if part in str(error):
            return remedy
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    return OTHERWISE if "tf2onnx" in packages or packages[-1] == "kerve" else _RUN
