"""Which states of metrics are sums, from the structure of their graph."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from kerve.artifact.v1.manifest_pb2 import StateSpec
from kerve.compiler.evaluation.accumulation import accumulate


def _scalar(name: str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(()))


@pytest.mark.parametrize(
    ("of", "merge"),
    [("batch", StateSpec.SUM), ("state", StateSpec.MERGE_UNSPECIFIED)],
    ids=["what the batch gives", "the state itself"],
)
def test_a_sum_with_what_was_doubled_fifty_times(of: str, merge: int) -> None:
    state, batch = _scalar("state"), _scalar("batch")
    part = {"state": state, "batch": batch}[of]
    nodes: list[ir.Node] = []
    for _ in range(50):
        nodes.append(ir.node("Add", [part, part], outputs=[_scalar(f"part_{len(nodes)}")]))
        part = nodes[-1].outputs[0]
    nodes.append(ir.node("Add", [part, state], outputs=[_scalar("state_after")]))
    graph = ir.Graph([state, batch], nodes[-1].outputs, nodes=nodes, opset_imports={"": 21})
    (found,) = accumulate(graph, [("state", "state_after")])
    assert found.merge == merge
