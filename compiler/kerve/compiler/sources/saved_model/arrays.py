"""TensorArrays of TensorFlow 1 that a loop writes, adapted in the graph before its conversion."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["filled_up"]


def filled_up(definition: Any) -> Any:
    """Pad stacked arrays with zeros, in place.

    An array has the number of rows that it was created with, and zeros in rows after the end of the loop, as
    those of `dynamic_rnn` after the longest sequence. The results of ONNX's loops have only the rows that
    were written.
    """
    nodes = {node.name: node for node in definition.node}
    for stack in [node for node in definition.node if node.op == "TensorArrayGatherV3"]:
        array = nodes[stack.input[0].partition(":")[0]]
        indices = nodes[stack.input[1].partition(":")[0]]
        shape = stack.attr["element_shape"].shape
        if array.op == "TensorArrayV3" and indices.op == "Range" and not shape.unknown_rank:
            _fill_up(definition, stack, array.input[0])
    return definition


def _fill_up(definition: Any, stack: Any, size: str) -> None:
    """Insert nodes that pad the rows of a node's output between it and its consumers."""
    element = tf.TensorShape(stack.attr["element_shape"].shape)
    with tf.Graph().as_default() as graph:
        rows = tf.compat.v1.placeholder(stack.attr["dtype"].type, [None, *element], "rows")
        wanted = tf.compat.v1.placeholder(tf.int32, [], "wanted")
        missing = wanted - tf.shape(rows)[0]
        paddings = tf.concat([[[0, missing]], tf.zeros([len(element), 2], tf.int32)], 0)
        whole = tf.pad(rows, paddings).op.name
    given = {"rows": stack.name, "wanted": size}
    within = f"{stack.name}/filled_up/"
    for node in definition.node:
        node.input[:] = [
            within + whole if each in (stack.name, f"{stack.name}:0") else each for each in node.input
        ]
    for node in graph.as_graph_def().node:
        if node.name not in given:
            added = definition.node.add()
            added.CopyFrom(node)
            added.name = within + node.name
            added.input[:] = [given.get(each, within + each) for each in node.input]
