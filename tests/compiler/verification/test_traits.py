"""What the outputs of a graph rest on."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from kerve.compiler.verification import OutputTraits, output_traits

_GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[N, 3] x, bool c) => (float[N, 3] plain, float[N, 3] drawn, float[N, 3] narrow, float[N, 3] branch,
   float[N, 3] rounded, float[N, 3] counted) {
   plain = Relu(x)
   noise = RandomNormalLike(x)
   drawn = Add(plain, noise)
   half = Cast<to = 10>(x)
   twice = Add(half, half)
   narrow = Cast<to = 1>(twice)
   bytes = Cast<to = 3>(x)
   rounded = Cast<to = 1>(bytes)
   whole = Cast<to = 7>(c)
   few = Cast<to = 3>(whole)
   many = Cast<to = 1>(few)
   counted = Mul(many, x)
   branch = If (c) <
      then_branch = a () => (float[N, 3] y) { z = RandomUniformLike(x) y = Mul(z, narrow) },
      else_branch = b () => (float[N, 3] y) { y = Identity(x) }
   >
}
"""


@pytest.mark.parametrize(
    ("output", "basis"),
    [
        pytest.param("plain", OutputTraits(), id="float32 throughout"),
        pytest.param("drawn", OutputTraits(drawn=True), id="a random number upstream"),
        pytest.param("narrow", OutputTraits(narrowest=ir.DataType.FLOAT16), id="float16 upstream"),
        pytest.param(
            "rounded", OutputTraits(narrowest=ir.DataType.INT8), id="rounded to eight bits upstream"
        ),
        pytest.param("counted", OutputTraits(), id="integers upstream"),
        pytest.param("branch", OutputTraits(drawn=True, narrowest=ir.DataType.FLOAT16), id="within a branch"),
    ],
)
def test_an_output_rests_on_all_that_is_upstream(output: str, basis: OutputTraits) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(_GRAPH))
    assert output_traits(ir.from_proto(model))[output] == basis


@pytest.mark.parametrize(
    ("images", "classes", "tied"), [("1", "1", False), ("N", "1", True), ("1", "3", True)]
)
def test_only_suppression_of_a_batch_leaves_the_order_of_ties_open(
    images: str, classes: str, tied: bool
) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[{images}, 20, 4] boxes, float[{images}, {classes}, 20] scores) => (int64[M, 3] kept) {{
       kept = NonMaxSuppression(boxes, scores)
    }}
    """
    assert output_traits(ir.from_proto(onnx.parser.parse_model(text)))["kept"].tied == tied
