"""Loading weights in HDF5 in the order of a model's variables.

Keras 2 loads them in the order of the file: for a nested model, trainable weights before others. Whether the
nested model was frozen is not in its configuration, so the order may differ when the model is loaded; it is
determined by the variables' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import tf_keras
from tf_keras.src.saving.legacy import hdf5_format

__all__ = ["load", "names"]


def load(model: tf_keras.Model, group: h5py.Group) -> None:
    """Load weights into a model; raises Keras's errors if they do not fit."""
    hdf5_format.load_weights_from_hdf5_group(_as_in(model, group), model)


def names(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names, which Keras splits if it is too long for HDF5."""
    return list(hdf5_format.load_attributes_from_hdf5_group(group, attribute))


@dataclass(frozen=True)
class _View:
    """A view of a group with other lists of names and other views of its members."""

    group: h5py.Group
    attrs: Mapping[str, Any]
    parts: Mapping[str, _View] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.parts[name] if name in self.parts else self.group[name]

    def __contains__(self, name: str) -> bool:
        return name in self.group


def _as_in(model: tf_keras.Model, group: h5py.Group) -> _View:
    """Return a view of the group with its layers and variables in the model's order."""
    layers = [layer for layer in model.layers if hdf5_format._legacy_weights(layer)]
    saved = {
        name: found for name in names(group, "layer_names") if (found := names(group[name], "weight_names"))
    }
    order = _in_order(list(saved), [layer.name for layer in layers])
    parts = {
        name: _View(group[name], {"weight_names": _in_order(saved[name], _variables(layer))})
        for name, layer in zip(order, layers, strict=False)  # Keras reports a different number of layers
    }
    return _View(group, {**group.attrs, "layer_names": order}, parts)


def _variables(layer: Any) -> list[str]:
    return [variable.name for variable in hdf5_format._legacy_weights(layer)]


def _in_order(saved: list[str], wanted: Sequence[str]) -> list[str]:
    """Return the names in the wanted order if they are the same and unique, or else unchanged."""
    is_same = len(set(saved)) == len(saved) and sorted(saved) == sorted(wanted)
    return list(wanted) if is_same else saved
