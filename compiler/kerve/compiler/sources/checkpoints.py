"""Restores TensorFlow checkpoints, which store weights by the path of attributes that leads to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from kerve.compiler.errors import LoadError

__all__ = ["restore"]

#: The checkpoint's key of its object graph, and the name of a variable's value there.
_GRAPH, _VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "VARIABLE_VALUE"


def restore(model: Any, prefix: Path) -> None:
    """Load a model's weights from a checkpoint of it, or of an object that has it as an attribute.

    Raises `LoadError` if the checkpoint lacks any of them.
    """
    reader = tf.train.load_checkpoint(str(prefix))
    keys = reader.get_variable_to_shape_map()
    if isinstance(model, keras.Model):
        _track_former_names(model)
    owners = sorted({key.partition("/")[0] for key in keys if key.count("/") > 1} - {"save_counter"})
    held = _held(model, reader, owners) if _GRAPH in keys else {}
    _require_all(model, held, prefix)
    candidates = [tf.train.Checkpoint(model), *(tf.train.Checkpoint(**{owner: model}) for owner in owners)]
    mismatch: AssertionError | None = None
    for candidate in candidates:
        try:
            candidate.read(str(prefix)).assert_existing_objects_matched()
        except AssertionError as error:  # raised for variables that are not in the checkpoint
            mismatch = error
        else:
            return
    if not held:
        raise LoadError(
            f"the checkpoint {prefix} does not hold the weights of this architecture; "
            f"it holds: {', '.join(sorted(key for key in keys if key.count('.') < 3)[:5])}, ..."
        ) from mismatch
    # TensorFlow restores each saved object into one object only. A layer that several inner models share is
    # one object in the checkpoint, but several in a model that was built from a configuration.
    for weight in model.weights:
        weight.assign(reader.get_tensor(held[id(weight)]))


def _require_all(model: Any, held: Mapping[int, str], prefix: Path) -> None:
    """Raise `LoadError` if a checkpoint lacks some of the weights: TensorFlow does not detect it in all."""
    missing = [
        getattr(weight, "path", weight.name) for weight in model.weights if held and id(weight) not in held
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise LoadError(
            f"the checkpoint {prefix} has no values for {shown}: it was saved from another model, or "
            "TensorFlow does not reach these weights by attributes, such as those of layers that Keras 3 "
            "keeps in lists; save the weights with model.save_weights('NAME.weights.h5')"
        )


def _held(model: Any, reader: Any, owners: Sequence[str]) -> dict[int, str]:
    """Return the checkpoint keys of a model's weights, by the weights' `id()`."""
    graph = TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
    named = _children(graph.nodes[0])
    starts = [0, *(named[owner] for owner in owners if owner in named)]
    weights = {id(weight) for weight in model.weights}
    found = ({i: key for i, key in _saved(model, graph, start) if i in weights} for start in starts)
    return max(found, key=len)


def _saved(root: Any, graph: TrackableObjectGraph, start: int) -> Iterator[tuple[int, str]]:
    """Yield the `id()` of each variable that is reached from `root`, with its checkpoint key."""
    left, seen = [(root, start)], set()
    while left:
        found, number = left.pop()
        if (id(found), number) in seen:
            continue
        seen.add((id(found), number))
        node = graph.nodes[number]
        for attribute in node.attributes:
            if attribute.name == _VALUE:
                yield id(found), attribute.checkpoint_key
        children = _children(node)
        left += [
            (child, children[name]) for name, child in found._trackable_children().items() if name in children
        ]


def _children(node: Any) -> dict[str, int]:
    return {child.local_name: child.node_id for child in node.children}


def _track_former_names(model: keras.Model) -> None:
    """Track variables under their former attribute names, too: Keras 3's `_kernel` was once `kernel`."""
    for layer in model._flatten_layers():
        for name, child in list(layer._trackable_children().items()):
            if name.startswith("_") and isinstance(child, keras.Variable):
                layer._track_trackable(child, name.lstrip("_"))
