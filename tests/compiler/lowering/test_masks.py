"""Masks: any step of any row may be dropped, and nothing but a loop-free graph comes of it."""

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
from hypothesis.extra import numpy as arrays
from keras import layers, ops
from numpy.typing import NDArray

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

RNG = np.random.default_rng(4)
OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
LOOPS = {"Loop", "Scan", "If"}


def masked(layer: keras.Layer, state: int = 0, units: int = 4, steps: int | None = None) -> keras.Model:
    x, mask = keras.Input((steps, 3), name="x"), keras.Input((steps,), dtype="bool", name="mask")
    states = [keras.Input((units,), name=f"state_{i}") for i in range(state)]
    options = {"initial_state": states} if states else {}
    return keras.Model([x, mask, *states], layer(x, mask=mask, **options))


def inputs(mask: NDArray[np.bool_], state: int = 0, units: int = 4) -> list[NDArray[Any]]:
    x = RNG.normal(size=(*mask.shape, 3)).astype("float32")
    return [x, mask, *RNG.normal(size=(state, len(mask), units)).astype("float32")]


#: All kept, none kept, padded right, padded left, holes; then at random.
EXAMPLES = np.array(
    [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]],
    bool,
)
MASKS = st.tuples(st.integers(1, 5), st.integers(1, 7)).flatmap(lambda shape: arrays.arrays(bool, shape))


@pytest.mark.parametrize("kind", OPERATORS)
def test_any_mask_on_any_configuration_equals_keras(
    equal_to_keras: Check, operators: Count, kind: str
) -> None:
    @settings(max_examples=10, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        flag = st.booleans()
        layer = getattr(layers, kind)(
            4,
            return_sequences=data.draw(flag),
            return_state=data.draw(flag),
            go_backwards=data.draw(flag),
            zero_output_for_mask=data.draw(flag),
            **({"reset_after": data.draw(flag)} if kind == "GRU" else {}),
        )
        count = (2 if kind == "LSTM" else 1) if data.draw(flag) else 0
        graph = equal_to_keras(
            masked(layer, count),
            inputs(EXAMPLES, count),
            inputs(data.draw(MASKS), count),
            batched=False,
            traced=False,
        )
        assert operators(graph)[OPERATORS[kind]] == 1
        assert not LOOPS & set(operators(graph))

    check()


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", OPERATORS)
def test_any_mask_in_both_directions_equals_keras(
    equal_to_keras: Check, operators: Count, kind: str, return_sequences: bool, merge_mode: str | None
) -> None:
    inner = getattr(layers, kind)(4, return_sequences=return_sequences, return_state=merge_mode == "concat")
    graph = equal_to_keras(
        masked(layers.Bidirectional(inner, merge_mode=merge_mode)),
        inputs(EXAMPLES),
        batched=False,
        traced=False,
    )
    assert operators(graph)[OPERATORS[kind]] == 1


def test_a_row_without_steps_keeps_its_initial_state_in_both_directions(equal_to_keras: Check) -> None:
    layer = layers.Bidirectional(layers.LSTM(4, return_state=True, return_sequences=True))
    equal_to_keras(masked(layer, 4), inputs(EXAMPLES, 4), traced=False)


@pytest.mark.parametrize("options", [{}, {"zero_output_for_mask": True}, {"go_backwards": True}])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
def test_any_mask_on_a_cell_without_operator_equals_keras(
    equal_to_keras: Check, options: dict[str, bool], return_sequences: bool, unroll: bool
) -> None:
    layer = layers.GRU(
        4, activation="gelu", return_sequences=return_sequences, unroll=unroll, return_state=True, **options
    )
    model = masked(layer, 1, steps=EXAMPLES.shape[1])
    equal_to_keras(model, inputs(EXAMPLES, 1), traced=False)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda **options: layers.LSTM(4, **options), id="operator"),
        pytest.param(lambda **options: layers.GRU(4, activation="gelu", **options), id="scan"),
        pytest.param(lambda **options: layers.RNN([layers.LSTMCell(3)] * 2, **options), id="stacked"),
    ],
)
@pytest.mark.parametrize("return_sequences", [False, True])
def test_an_unrolled_backward_layer_zeroes_by_the_mask_as_it_came(
    equal_to_keras: Check, layer: Callable[..., keras.Layer], return_sequences: bool
) -> None:
    unrolled = {"unroll": True, "return_sequences": return_sequences}
    for each in (
        layer(go_backwards=True, zero_output_for_mask=True, **unrolled),
        layers.Bidirectional(layer(**unrolled)),
    ):
        equal_to_keras(masked(each, steps=EXAMPLES.shape[1]), inputs(EXAMPLES), traced=False)


def test_stacked_cells_take_a_mask(equal_to_keras: Check) -> None:
    for options in ({}, {"return_sequences": True}, {"return_sequences": True, "go_backwards": True}):
        layer = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_state=True, **options)
        equal_to_keras(masked(layer), inputs(EXAMPLES), traced=False)


def test_convolutional_recurrence_takes_a_mask(equal_to_keras: Check) -> None:
    x, mask = keras.Input((None, 6, 5, 2), name="x"), keras.Input((None,), dtype="bool", name="mask")
    layer = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True, return_state=True)
    frames = RNG.normal(size=(*EXAMPLES.shape, 6, 5, 2)).astype("float32")
    equal_to_keras(keras.Model([x, mask], layer(x, mask=mask)), [frames, EXAMPLES], traced=False)


def embedded(*following: keras.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((None,), dtype="int32", name="ids"), layers.Embedding(5, 6, mask_zero=True), *following]
    )


IDS = RNG.integers(0, 5, size=(6, 8)).astype("int32") * np.arange(6)[:, None].clip(0, 1).astype("int32")
SHORTER = RNG.integers(0, 5, size=(3, 5)).astype("int32")


@pytest.mark.parametrize(
    "following",
    [
        pytest.param(lambda: [layers.LSTM(4)], id="last output"),
        pytest.param(lambda: [layers.LSTM(4, return_sequences=True), layers.GRU(4)], id="stacked layers"),
        pytest.param(
            lambda: [
                layers.Bidirectional(layers.GRU(4, return_sequences=True)),
                layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="sum"),
                layers.SimpleRNN(4, go_backwards=True),
            ],
            id="both directions",
        ),
        pytest.param(
            lambda: [
                layers.LSTM(4, return_sequences=True),
                layers.Dropout(0.5),
                layers.GlobalAveragePooling1D(),
            ],
            id="masked mean",
        ),
    ],
)
def test_a_mask_travels_from_the_embedding(
    equal_to_keras: Check, operators: Count, following: Callable[[], list[keras.Layer]]
) -> None:
    graph = equal_to_keras(embedded(*following()), IDS, SHORTER, predict=True, traced=False)
    assert not LOOPS & set(operators(graph))


def test_a_mask_travels_through_a_layer_distributed_over_time(equal_to_keras: Check) -> None:
    model = embedded(layers.TimeDistributed(layers.Dense(4)), layers.LSTM(3))
    equal_to_keras(model, IDS, SHORTER, traced=False)
    sentences = keras.Input((None, 4), dtype="int32", name="sentences")
    words = layers.Embedding(5, 6, mask_zero=True)(sentences)
    each = layers.TimeDistributed(layers.LSTM(3))(words)
    ids = RNG.integers(0, 5, size=(3, 5, 4)).astype("int32")
    equal_to_keras(keras.Model(sentences, each), ids, traced=False)


def test_a_mask_of_values_travels(equal_to_keras: Check) -> None:
    x = RNG.normal(size=(4, 6, 3)).astype("float32")
    x[RNG.random((4, 6)) < 0.4] = -1.0
    for layer in (layers.LSTM(4, return_sequences=True), layers.Bidirectional(layers.GRU(4))):
        model = keras.Sequential([keras.Input((None, 3)), layers.Masking(-1.0), layer])
        equal_to_keras(model, x, x[:2, :3], predict=True, traced=False)


@pytest.mark.parametrize(
    "merge",
    [
        pytest.param(lambda: layers.Concatenate(axis=1), id="concatenated in time"),
        pytest.param(lambda: layers.Concatenate(axis=-1), id="concatenated in features"),
        pytest.param(lambda: layers.Add(), id="added"),
        pytest.param(lambda: layers.Multiply(), id="multiplied"),
    ],
)
def test_masks_merge_as_in_keras(equal_to_keras: Check, merge: Callable[[], keras.Layer]) -> None:
    first, second = (keras.Input((None,), dtype="int32", name=name) for name in ("first", "second"))
    parts = [layers.Embedding(5, 6, mask_zero=True)(ids) for ids in (first, second)]
    model = keras.Model([first, second], layers.LSTM(4)(merge()(parts)))
    equal_to_keras(model, [IDS, IDS[::-1].copy()], traced=False)


def test_a_mask_that_is_computed_from_data_is_taken(equal_to_keras: Check) -> None:
    x = keras.Input((None, 3), name="x")
    loud = ops.mean(x, axis=-1) > 0.0
    model = keras.Model(x, layers.LSTM(4, return_sequences=True)(x, mask=loud))
    equal_to_keras(model, RNG.normal(size=(5, 9, 3)).astype("float32"), traced=False)
