"""Keras's open name scopes: a compile in the user's process leaves them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keras.src.backend.common import global_state

__all__ = ["name_scopes_restored"]


@contextmanager
def name_scopes_restored() -> Iterator[None]:
    """Close the name scopes that are still open at the end.

    Keras's scope stays open where TensorFlow refuses its name (a layer called `a<b>`, in a graph). The paths
    of all variables made later would begin with it, and an optimizer's could no longer be made.
    """
    scopes = global_state.get_global_attribute("name_scope_stack", default=[], set_to_default=True)
    depth = len(scopes)
    try:
        yield
    finally:
        del scopes[depth:]
