"""Slices backwards: NumPy's and TensorFlow's are empty where they begin before the first element.

ONNX moves their begin into the tensor, so one that counts from the end goes over a span forwards first.
"""

from __future__ import annotations

__all__ = ["may_begin_before", "span"]


def may_begin_before(part: slice) -> bool:
    """Whether a slice may begin before the first element and go on backwards."""
    return part.step is not None and part.step < 0 and isinstance(part.start, int) and part.start < -1


def span(part: slice) -> slice:
    """Return what a slice backwards, from a place counted from the end, goes over, forwards."""
    if part.stop is None:
        return slice(0, part.start + 1)
    return slice(0, 0) if part.stop == -1 else slice(part.stop + 1, part.start + 1)
