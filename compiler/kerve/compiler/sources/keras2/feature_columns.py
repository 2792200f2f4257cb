"""Deserialization of feature columns that have the same name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tensorflow.python.feature_column import serialization

__all__ = ["distinguished"]


@contextmanager
def distinguished() -> Iterator[None]:
    """Make TensorFlow treat deserialized columns as the same column only if they are equal.

    Otherwise the first column of a name replaces all others of that name, such as an age in other buckets.
    """
    name = serialization._column_name_with_class_name

    def key(column: Any) -> Any:
        return name(column), column

    with mock.patch.object(serialization, "_column_name_with_class_name", key):
        yield
