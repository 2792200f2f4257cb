"""Attention layers equal Keras with every mask, and come out in the form that ONNX Runtime fuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from keras import layers, ops
from numpy.typing import NDArray

from kerve.compiler.lowering import lower
from kerve.compiler.passes import optimize

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

RNG = np.random.default_rng(6)
OPSETS = pytest.mark.parametrize("opset", [17, 21, 23])


def normal(*shape: int) -> NDArray[Any]:
    return RNG.normal(size=shape).astype("float32")


def attending(layer: keras.Layer, steps: int | None = None, **options: Any) -> keras.Model:
    """A model of one layer that attends from `query` to `value`, its biases not zero."""
    query, value = keras.Input((steps, 8), name="query"), keras.Input((steps, 8), name="value")
    return with_biases(keras.Model([query, value], layer(query, value, **options)))


def with_biases(model: keras.Model) -> keras.Model:
    for weight in model.weights:
        if "bias" in weight.path:
            weight.assign(normal(*weight.shape))
    return model


LAYERS: dict[str, Callable[..., keras.Layer]] = {
    "MultiHeadAttention": lambda **options: layers.MultiHeadAttention(4, 3, **options),
    "GroupQueryAttention": lambda **options: layers.GroupQueryAttention(3, 4, 2, **options),
}


@OPSETS
@pytest.mark.parametrize("kind", LAYERS)
def test_any_configuration_equals_keras(equal_to_keras: Check, kind: str, opset: int) -> None:
    @settings(max_examples=6, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        flag = st.booleans()
        options: dict[str, Any] = {
            "dropout": data.draw(st.sampled_from([0.0, 0.3])),
            "use_bias": data.draw(flag),
        }
        if kind == "MultiHeadAttention":
            options |= {"value_dim": data.draw(st.sampled_from([None, 2]))}
            options |= {"output_shape": data.draw(st.sampled_from([None, 5, (2, 3)]))}
            options |= {"use_gate": data.draw(flag)}
        model = attending(
            LAYERS[kind](**options),
            data.draw(st.sampled_from([None, 5])),
            use_causal_mask=data.draw(flag),
            return_attention_scores=data.draw(flag),
        )
        equal_to_keras(model, [normal(3, 5, 8), normal(3, 5, 8)], opset=opset, traced=False)

    check()


@OPSETS
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_any_mask_equals_keras(
    equal_to_keras: Check, kind: str, causal: bool, dropout: float, opset: int
) -> None:
    query, value = keras.Input((None, 8), name="query"), keras.Input((None, 8), name="value")
    mask = keras.Input((None, None), dtype="bool", name="mask")
    layer = LAYERS[kind](dropout=dropout)
    model = keras.Model(
        [query, value, mask], layer(query, value, attention_mask=mask, use_causal_mask=causal)
    )
    kept = RNG.random((4, 5, 6)) < 0.4
    kept[0, 0], kept[1] = False, False  # rows that attend to nothing
    equal_to_keras(with_biases(model), [normal(4, 5, 8), normal(4, 6, 8), kept], opset=opset, traced=False)


@OPSETS
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_masks_of_embeddings_are_attention_masks(
    equal_to_keras: Check, causal: bool, dropout: float, opset: int
) -> None:
    first, second = (keras.Input((None,), dtype="int32", name=name) for name in ("first", "second"))
    query, value = (layers.Embedding(4, 8, mask_zero=True)(ids) for ids in (first, second))
    cross = layers.MultiHeadAttention(2, 4, dropout=dropout)(query, value)
    own = layers.MultiHeadAttention(2, 4, dropout=dropout)(cross, cross, use_causal_mask=causal)
    grouped = layers.GroupQueryAttention(4, 4, 2, dropout=dropout)(own, value)
    last = layers.LSTM(3)(own)  # the query's mask travels on
    ids = [RNG.integers(0, 4, size=(4, steps)).astype("int32") for steps in (5, 6)]
    ids[0][1], ids[1][0] = 0, 0
    equal_to_keras(keras.Model([first, second], [cross, own, grouped, last]), ids, opset=opset, traced=False)


@pytest.mark.parametrize("mode", ["dot", "concat"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("use_scale", [False, True])
def test_attention_of_one_head_equals_keras(
    equal_to_keras: Check, use_scale: bool, causal: bool, mode: str
) -> None:
    first, second = (keras.Input((None,), dtype="int32", name=name) for name in ("first", "second"))
    query, value = (layers.Embedding(4, 8, mask_zero=True)(ids) for ids in (first, second))
    outputs = layers.Attention(use_scale=use_scale, score_mode=mode, dropout=0.2)(
        [query, value], use_causal_mask=causal, return_attention_scores=True
    )
    ids = [RNG.integers(0, 4, size=(4, steps)).astype("int32") for steps in (5, 6)]
    equal_to_keras(keras.Model([first, second], outputs), ids, predict=True, traced=False)


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_additive_attention_equals_keras(equal_to_keras: Check, causal: bool, use_scale: bool) -> None:
    query, value, key = (keras.Input((None, 8), name=name) for name in ("query", "value", "key"))
    outputs = layers.AdditiveAttention(use_scale=use_scale, dropout=0.2)(
        [query, value, key], use_causal_mask=causal
    )
    equal_to_keras(
        keras.Model([query, value, key], outputs),
        [normal(3, 5, 8), normal(3, 6, 8), normal(3, 6, 8)],
        predict=True,
        traced=False,
    )


@pytest.mark.parametrize("axes", [None, (1,), (2,), (1, 2)])
def test_attention_over_axes_of_an_image_equals_keras(
    equal_to_keras: Check, axes: tuple[int, ...] | None
) -> None:
    image = keras.Input((4, 5, 8), name="image")
    layer = layers.MultiHeadAttention(2, 4, attention_axes=axes, dropout=0.1)
    model = with_biases(keras.Model(image, layer(image, image)))
    equal_to_keras(model, normal(2, 4, 5, 8), traced=False)


def test_a_sliding_window_equals_keras(equal_to_keras: Check) -> None:
    for layer in (layers.MultiHeadAttention(2, 4, sliding_window=2), layers.GroupQueryAttention(4, 4, 2)):
        x = keras.Input((None, 8), name="x")
        equal_to_keras(keras.Model(x, layer(x, x)), normal(2, 7, 8), traced=False)


@OPSETS
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_operation_equals_keras(
    equal_to_keras: Check, causal: bool, with_bias: bool, with_mask: bool, heads: int, opset: int
) -> None:
    inputs = [keras.Input((5, 4, 8), name="query"), keras.Input((6, heads, 8), name="key")]
    arrays, options = [normal(2, 5, 4, 8), normal(2, 6, heads, 8)], {}
    if with_bias:
        options["bias"] = keras.Input((4, 5, 6), name="bias")
        arrays.append(normal(2, 4, 5, 6))
    if with_mask:
        options["mask"] = keras.Input((1, 5, 6), dtype="bool", name="mask")
        arrays.append(RNG.random((2, 1, 5, 6)) < 0.4)
    query, key = inputs
    if heads == 1:  # TensorFlow shares the heads of groups, but not a single one
        key = ops.repeat(key, 4, axis=2)
    outputs = ops.dot_product_attention(query, key, key, is_causal=causal, scale=0.4, **options)
    model = keras.Model([*inputs, *options.values()], outputs)
    equal_to_keras(model, arrays, opset=opset, traced=False)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("steps", [None, 16])
def test_many_heads_are_sixteen_nodes_before_the_attention_operator(
    operators: Count, steps: int | None, dropout: float
) -> None:
    model = attending(layers.MultiHeadAttention(4, 8, dropout=dropout), steps)
    assert operators(optimize(lower(model).model)) == {
        "MatMul": 6,
        "Add": 4,
        "Reshape": 4,
        "Transpose": 4,
        "Mul": 1,
        "Softmax": 1,
    }


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_many_heads_are_one_attention_operator_from_opset_23(
    operators: Count, kind: str, causal: bool, dropout: float
) -> None:
    model = attending(LAYERS[kind](dropout=dropout), use_causal_mask=causal)
    counts = operators(optimize(lower(model, opset=23).model))
    assert counts["Attention"] == 1
    assert counts["MatMul"] == 4
    assert counts["Softmax"] == counts["Transpose"] == 0


@pytest.mark.parametrize("opset", [21, 23])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_types_are_computed_as_well_as_onnx_runtime_can(
    equal_to_keras: Check, policy: str, opset: int
) -> None:
    keras.config.set_dtype_policy(policy)
    close = {"float64": 1e-6, "mixed_float16": 5e-3, "mixed_bfloat16": 5e-2}[policy]
    model = attending(layers.MultiHeadAttention(2, 4), use_causal_mask=True)
    equal_to_keras(model, [normal(2, 5, 8)] * 2, opset=opset, rtol=close, atol=close, traced=False)


@pytest.mark.parametrize("opset", [21, 23])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_padding_attends_to_all_positions_alike_in_any_type(
    equal_to_keras: Check, policy: str, opset: int
) -> None:
    keras.config.set_dtype_policy(policy)
    close = {"float64": 1e-6, "mixed_float16": 5e-3, "mixed_bfloat16": 5e-2}[policy]
    tokens = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(7, 8, mask_zero=True)(tokens)
    model = keras.Model(tokens, layers.MultiHeadAttention(2, 4)(embedded, embedded))
    words = np.array([[3, 1, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")
    equal_to_keras(model, words, opset=opset, rtol=close, atol=close, traced=False)


def test_a_subclass_that_computes_attention_itself_is_heard(equal_to_keras: Check) -> None:
    class Halved(layers.MultiHeadAttention):
        def _compute_attention(self, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            return super()._compute_attention(query, key, 0.5 * value, *args, **kwargs)

    for dropout in (0.0, 0.3):
        model = attending(Halved(2, 4, dropout=dropout), use_causal_mask=True)
        equal_to_keras(model, [normal(2, 5, 8)] * 2, traced=False)


def test_lowering_leaves_dropout_as_it_is() -> None:
    layer = layers.MultiHeadAttention(2, 4, dropout=0.3)
    lower(attending(layer))
    assert layer.dropout == 0.3


@pytest.mark.parametrize(
    ("equation", "shape", "output", "bias", "nodes"),
    [
        pytest.param("abc,cd->abd", (5, 8), (None, 3), "d", {"MatMul": 1, "Add": 1}, id="dense"),
        pytest.param("...x,xy->...y", (5, 8), 3, "y", {"MatMul": 1, "Add": 1}, id="ellipsis"),
        pytest.param(
            "abc,cde->abde", (5, 8), (None, 2, 3), "de", {"MatMul": 1, "Add": 1, "Reshape": 1}, id="heads"
        ),
        pytest.param(
            "abcd,cde->abe", (5, 4, 2), (None, 3), "e", {"MatMul": 1, "Add": 1, "Reshape": 1}, id="joined"
        ),
        pytest.param(
            "abc,cde->abde", (5, 8), (5, 2, 3), "be", {"MatMul": 1, "Add": 1, "Reshape": 1}, id="outer bias"
        ),
        pytest.param("abc,bd->adc", (5, 8), (3, 8), None, {"MatMul": 1}, id="along time"),
    ],
)
def test_einsum_dense_is_one_product_of_matrices(
    equal_to_keras: Check,
    operators: Count,
    equation: str,
    shape: tuple[int, ...],
    output: Any,
    bias: str | None,
    nodes: dict[str, int],
) -> None:
    x = keras.Input(shape, name="x")
    layer = layers.EinsumDense(equation, output_shape=output, bias_axes=bias, activation="tanh")
    model = with_biases(keras.Model(x, layer(x)))
    graph = optimize(equal_to_keras(model, normal(3, *shape), traced=False))
    assert operators(graph) == nodes | {"Tanh": 1}
