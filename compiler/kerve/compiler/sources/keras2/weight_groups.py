"""Loading weights stored in a group for each layer, as in `.keras` and `.weights.h5` of Keras 2.12 and later.

2.12 and 2.13 name the group of a model's layers after an attribute that was renamed later, and count layers
with weights twice: the second Dense is `dense_2`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import keras.src.saving.saving_lib as new_reader
import tf_keras.src.saving.saving_lib as old_reader

from kerve.compiler.sources import shared_weights
from kerve.compiler.sources.keras2.bridges import NewLayer

__all__ = ["reading", "rename"]

_OLD, _NEW = "_layer_checkpoint_dependencies", "layers"


def rename(weights: Path) -> None:
    """Rename the groups of a `.weights.h5` to the current names; the target of a link is not changed."""
    with h5py.File(weights, "r") as file:
        if _OLD not in file:
            return
    if weights.is_symlink():
        original = weights.resolve()
        weights.unlink()
        shutil.copyfile(original, weights)
    with h5py.File(weights, "r+") as file:
        _rename_below(file)


def _rename_below(group: h5py.Group) -> None:
    if _OLD in group:
        group.move(_OLD, _NEW)
        for kind, names in groupby(sorted(group[_NEW], key=_numbered), key=lambda name: _numbered(name)[0]):
            for count, name in enumerate(names):
                new = f"{kind}_{count}" if count else kind
                if name != new:
                    group[_NEW].move(name, new)
    for child in list(group.values()):
        if isinstance(child, h5py.Group):
            _rename_below(child)


def _numbered(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)_(\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


@contextmanager
def reading() -> Iterator[None]:
    """Make tf_keras load weights into Keras 3 layers, including sublayers, and into every copy of a layer."""
    load = old_reader._load_state

    def load_state(layer: Any, store: Any, assets: Any, inner_path: str, **options: Any) -> None:
        if isinstance(layer, NewLayer) and isinstance(store, old_reader.H5IOStore):
            with shared_weights.checked_weight_loading(new_reader):
                new_reader._load_state(layer.new, _Opened(store.h5_file), None, inner_path)
        else:
            load(layer, store, assets, inner_path, **options)

    with (
        mock.patch.object(old_reader, "_load_state", load_state),
        shared_weights.checked_weight_loading(old_reader),
    ):
        yield


class _Opened(new_reader.H5IOStore):
    """A file opened by tf_keras, for Keras 3."""

    def __init__(self, file: h5py.File) -> None:
        self.h5_file, self.mode = file, "r"
