"""Feature columns of an old file, each with what it was made with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tensorflow.python.feature_column import serialization

__all__ = ["told_apart"]


@contextmanager
def told_apart() -> Iterator[None]:
    """Have TensorFlow take columns for one only where they are equal.

    It takes the first of a name for all of them, and an age in other buckets has the same name.
    """
    name = serialization._column_name_with_class_name

    def key(column: Any) -> Any:
        return name(column), column

    with mock.patch.object(serialization, "_column_name_with_class_name", key):
        yield
