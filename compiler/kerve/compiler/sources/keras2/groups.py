"""Where the weights of each layer are in a file of Keras 2.12 and 2.13.

They call the layers of a model by an attribute that Keras renamed, and count those with weights twice: the
second Dense is `dense_2`.
"""

from __future__ import annotations

import re
import shutil
from itertools import groupby
from pathlib import Path

import h5py

__all__ = ["rename"]

_OLD, _NEW = "_layer_checkpoint_dependencies", "layers"


def rename(weights: Path) -> None:
    """Give the groups of a `.weights.h5` today's names; what a link leads to stays as it is."""
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
