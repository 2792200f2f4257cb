"""Restores Keras's name scopes after a compile in the user's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keras.src.backend.common import global_state

__all__ = ["name_scopes_restored"]


@contextmanager
def name_scopes_restored() -> Iterator[None]:
    """Close the name scopes that were opened within the context and are still open at its end.

    Keras does not close a scope whose name TensorFlow rejects (of a layer called `a<b>`, in a graph). The
    paths of all later variables would begin with that name, and creating an optimizer's variables would fail.
    """
    scopes = global_state.get_global_attribute("name_scope_stack", default=[], set_to_default=True)
    depth = len(scopes)
    try:
        yield
    finally:
        del scopes[depth:]
