"""Seeded inputs fit the model, differ in size, and are the same every time."""

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from kerve.compiler.errors import LoadError
from kerve.compiler.verification.data import arrays_in, seeded
from kerve.compiler.verification.windows import windows_fit


def model_of(
    *inputs: ir.Value, nodes: list[ir.Node] | None = None, weights: list[ir.Value] | None = None
) -> ir.Model:
    graph = ir.Graph(
        inputs, [], nodes=nodes or [], initializers=weights or [], opset_imports={"": 21}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def value(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    return ir.val(name, dtype, ir.Shape(shape))


def test_every_open_dimension_takes_two_sizes() -> None:
    first, second = seeded(model_of(value("x", ir.DataType.FLOAT, "batch", "x_1", 3)), (7, 12))
    assert first.inputs["x"].shape == (2, 7, 3)
    assert second.inputs["x"].shape == (4, 12, 3)
    assert second.sizes == {"batch": 4, "x_1": 12}


def test_dimensions_of_one_name_agree_between_inputs() -> None:
    x = value("x", ir.DataType.FLOAT, "batch", "time")
    y = value("y", ir.DataType.INT64, "batch", "time", 2)
    (first, _) = seeded(model_of(x, y), (7, 12))
    assert first.inputs["y"].shape == (3, 7, 2)


def test_values_are_the_same_every_time() -> None:
    model = model_of(value("x", ir.DataType.FLOAT, "batch", 4), value("ids", ir.DataType.INT32, "batch", 9))
    for one, other in zip(seeded(model, (7, 12)), seeded(model, (7, 12)), strict=True):
        for name in one.inputs:
            np.testing.assert_array_equal(one.inputs[name], other.inputs[name])


def test_ids_stay_below_the_rows_of_the_table_they_index() -> None:
    ids = value("ids", ir.DataType.INT32, "batch", 500)
    table = ir.val("table", const_value=ir.tensor(np.zeros((11, 3), np.float32)))
    cast = ir.node("Cast", [ids], {"to": int(ir.DataType.INT64)})
    gather = ir.node("Gather", [table, cast.outputs[0]])
    (first, _) = seeded(model_of(ids, nodes=[cast, gather], weights=[table]), (7, 12))
    assert first.inputs["ids"].min() >= 0
    assert first.inputs["ids"].max() == 10


def test_tables_are_found_behind_more_operators_than_calls_can_be_nested() -> None:
    ids = value("ids", ir.DataType.INT32, "batch", 500)
    table = ir.val("table", const_value=ir.tensor(np.zeros((11, 3), np.float32)))
    nodes = [ir.node("Identity", [ids])]
    while len(nodes) < 2000:
        nodes.append(ir.node("Identity", [nodes[-1].outputs[0]]))
    gather = ir.node("Gather", [table, nodes[-1].outputs[0]])
    (first, _) = seeded(model_of(ids, nodes=[*nodes, gather], weights=[table]), (7, 12))
    assert first.inputs["ids"].max() == 10


def test_words_come_from_the_models_tables_and_beyond() -> None:
    words = value("words", ir.DataType.STRING, "batch", 200)
    encode = ir.node(
        "LabelEncoder",
        [words],
        {"keys_strings": ["cat", "dog"], "values_int64s": [1, 2]},
        domain="ai.onnx.ml",
    )
    (first, _) = seeded(model_of(words, nodes=[encode]), (7, 12))
    seen = set(first.inputs["words"].reshape(-1))
    assert {"cat", "dog"} < seen


def test_no_batch_is_as_large_as_a_dimension_of_the_model() -> None:
    sizes = [
        dataset.sizes["batch"]
        for dataset in seeded(model_of(value("x", ir.DataType.FLOAT, "batch", 2, 4)), (7, 12))
    ]
    assert sizes == [3, 5]


def test_windows_need_room() -> None:
    image = value("x", ir.DataType.FLOAT, "batch", 3, "height", "width")
    kernel = ir.val("kernel", const_value=ir.tensor(np.zeros((4, 3, 3, 3), np.float32)))
    convolve = ir.node("Conv", [image, kernel], {"strides": [2, 2]})
    pool = ir.node("MaxPool", convolve.outputs, {"kernel_shape": [2, 2], "strides": [2, 2]})
    same = ir.node("MaxPool", pool.outputs, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"})
    model = model_of(image, nodes=[convolve, pool, same], weights=[kernel])
    room = {size: windows_fit(model, {"x": (2, 3, size, 9)}) for size in range(1, 7)}
    assert room == {1: False, 2: False, 3: False, 4: False, 5: True, 6: True}


def test_data_that_has_no_end_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(LoadError, match=r"is not a \.npz file of plain arrays"):
        arrays_in(tmp_path / "data.npz")
