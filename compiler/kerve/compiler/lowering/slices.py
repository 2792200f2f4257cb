"""Backward slices, which in NumPy and TensorFlow are empty if they begin before the first element.

ONNX clamps their begin to the tensor, so one with a negative begin is applied after a forward slice.
"""

from __future__ import annotations

__all__ = ["may_begin_before", "span"]


def may_begin_before(part: slice) -> bool:
    """Whether a backward slice may begin before the first element."""
    return part.step is not None and part.step < 0 and isinstance(part.start, int) and part.start < -1


def span(part: slice) -> slice:
    """Return the forward slice of the elements that a backward slice with a negative begin covers."""
    if part.stop is None:
        return slice(0, part.start + 1)
    return slice(0, 0) if part.stop == -1 else slice(part.stop + 1, part.start + 1)
