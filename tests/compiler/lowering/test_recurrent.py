"""Recurrent layers equal Keras in every configuration, and are ONNX's own operators where it has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from keras import layers, ops
from numpy.typing import NDArray

from kerve.compiler.lowering import lower
from kerve.compiler.passes import optimize

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

RNG = np.random.default_rng(3)
OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
LOOPS = {"Loop", "Scan", "If"}


@keras.saving.register_keras_serializable("kerve-tests")
class Leaky(layers.Layer):
    """A cell of an author's own, with two states of two sizes that do not start at zero."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.state_size = [units, 2]
        self.output_size = units + 2

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        return [ops.ones((batch_size, self.units)), ops.full((batch_size, 2), 0.5)]

    def call(self, inputs: Any, states: list[Any], training: bool = False) -> tuple[Any, list[Any]]:
        level, slow = states
        level = 0.7 * level + ops.tanh(ops.matmul(inputs, self.kernel))
        return ops.concatenate([level, slow], axis=-1), [level, 0.9 * slow + 0.1 * level[:, :2]]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class OverTable(layers.Layer):
    """Takes rows of what a recurrent layer makes of a table: no input reaches that layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = layers.Embedding(9, 4)
        self.recurrent = layers.GRU(3, return_sequences=True)

    def call(self, ids: Any) -> Any:
        return ops.take(self.recurrent(self.table(ops.arange(9))[None])[0], ids, axis=0)


class Doubling(layers.LSTM):
    """A layer that adds to what its parent does."""

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        return super().call(2.0 * sequences, initial_state=initial_state, mask=mask)


def sequences(rows: int, steps: int, *sizes: int) -> NDArray[Any]:
    return RNG.normal(size=(rows, steps, *sizes)).astype("float32")


def on_sequences(layer: keras.Layer, steps: int | None = None, sizes: tuple[int, ...] = (3,)) -> keras.Model:
    x = keras.Input((steps, *sizes), name="x")
    return keras.Model(x, layer(x))


@pytest.mark.parametrize("kind", OPERATORS)
def test_any_configuration_equals_keras(equal_to_keras: Check, operators: Count, kind: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        flag = st.booleans()
        layer = getattr(layers, kind)(
            data.draw(st.integers(1, 6)),
            return_sequences=data.draw(flag),
            return_state=data.draw(flag),
            go_backwards=data.draw(flag),
            use_bias=data.draw(flag),
            bias_initializer="normal",
            dropout=data.draw(st.sampled_from([0.0, 0.4])),
            recurrent_dropout=data.draw(st.sampled_from([0.0, 0.2])),
            **({"reset_after": data.draw(flag)} if kind == "GRU" else {}),
        )
        steps = data.draw(st.integers(1, 6))
        given_steps = data.draw(st.sampled_from([None, steps]))
        graph = equal_to_keras(on_sequences(layer, given_steps), sequences(4, steps, 3), traced=False)
        assert operators(graph)[OPERATORS[kind]] == 1
        assert not LOOPS & set(operators(graph))

    check()


@pytest.mark.parametrize("kind", OPERATORS)
def test_predictions_are_equal_at_two_lengths(equal_to_keras: Check, kind: str) -> None:
    model = on_sequences(getattr(layers, kind)(5, return_sequences=True))
    equal_to_keras(model, sequences(6, 7, 3), sequences(2, 11, 3), predict=True, traced=False)


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_layer_is_one_operator_between_views(operators: Count, kind: str) -> None:
    graph = optimize(lower(on_sequences(getattr(layers, kind)(5))).model)
    shields = {} if kind == "SimpleRNN" else {"Reshape": 1}  # see passes/shield_kernels.py
    assert operators(graph) == {"Transpose": 1, **shields, OPERATORS[kind]: 1, "Squeeze": 1}


@pytest.mark.parametrize(
    "activation",
    ["tanh", "relu", "sigmoid", "hard_sigmoid", "softsign", "elu", "leaky_relu", "linear", None],
)
@pytest.mark.parametrize("kind", OPERATORS)
def test_activations_that_onnx_knows_stay_in_the_operator(
    equal_to_keras: Check, operators: Count, kind: str, activation: str | None
) -> None:
    recurrent = {} if kind == "SimpleRNN" else {"recurrent_activation": "hard_sigmoid"}
    layer = getattr(layers, kind)(4, activation=activation, return_sequences=True, **recurrent)
    graph = equal_to_keras(on_sequences(layer), sequences(3, 5, 3), traced=False)
    assert operators(graph)[OPERATORS[kind]] == 1


@pytest.mark.parametrize("activation", ["gelu", "silu", "softplus", keras.ops.sin])
@pytest.mark.parametrize("kind", OPERATORS)
def test_other_activations_run_in_one_scan(
    equal_to_keras: Check, operators: Count, kind: str, activation: Any
) -> None:
    layer = getattr(layers, kind)(4, activation=activation, return_sequences=True, dropout=0.5)
    graph = equal_to_keras(on_sequences(layer), sequences(3, 5, 3), sequences(2, 8, 3), traced=False)
    assert operators(graph)["Scan"] == 1


def test_softplus_does_not_overflow(equal_to_keras: Check) -> None:
    layer = layers.SimpleRNN(2, activation="softplus", return_sequences=True, kernel_initializer="ones")
    equal_to_keras(on_sequences(layer), 200 * np.ones((1, 4, 3), "float32"))


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("return_sequences", [False, True])
def test_an_initial_state_is_taken(equal_to_keras: Check, kind: str, return_sequences: bool) -> None:
    count = 2 if kind == "LSTM" else 1
    x = keras.Input((None, 3), name="x")
    states = [keras.Input((4,), name=f"state_{i}") for i in range(count)]
    layer = getattr(layers, kind)(4, return_sequences=return_sequences, return_state=True)
    model = keras.Model([x, *states], layer(x, initial_state=states))
    given = [RNG.normal(size=(3, 4)).astype("float32") for _ in range(count)]
    equal_to_keras(model, [sequences(3, 5, 3), *given], traced=False)


def test_an_encoder_hands_its_state_to_a_decoder(equal_to_keras: Check) -> None:
    source, target = keras.Input((None, 3), name="source"), keras.Input((None, 3), name="target")
    _, *state = layers.LSTM(4, return_state=True)(source)
    decoded = layers.LSTM(4, return_sequences=True)(target, initial_state=state)
    model = keras.Model([source, target], layers.Dense(2)(decoded))
    equal_to_keras(model, [sequences(3, 5, 3), sequences(3, 6, 3)], traced=False)


@pytest.mark.parametrize("unroll_steps", [1, 6])
def test_an_unrolled_layer_is_one_operator_too(
    equal_to_keras: Check, operators: Count, unroll_steps: int
) -> None:
    model = on_sequences(layers.GRU(4, unroll=True, return_sequences=True), unroll_steps)
    assert operators(equal_to_keras(model, sequences(3, unroll_steps, 3), traced=False))["GRU"] == 1


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", OPERATORS)
def test_both_directions_are_one_operator(
    equal_to_keras: Check,
    operators: Count,
    kind: str,
    return_sequences: bool,
    return_state: bool,
    merge_mode: str | None,
) -> None:
    inner = getattr(layers, kind)(3, return_sequences=return_sequences, return_state=return_state)
    graph = equal_to_keras(
        on_sequences(layers.Bidirectional(inner, merge_mode=merge_mode)), sequences(3, 5, 3), traced=False
    )
    assert operators(graph)[OPERATORS[kind]] == 1


def test_directions_of_two_kinds_are_two_operators(equal_to_keras: Check, operators: Count) -> None:
    layer = layers.Bidirectional(
        layers.LSTM(3, return_sequences=True),
        backward_layer=layers.GRU(3, return_sequences=True, go_backwards=True),
    )
    counts = operators(equal_to_keras(on_sequences(layer), sequences(3, 5, 3), traced=False))
    assert counts["LSTM"] == counts["GRU"] == 1


def test_an_initial_state_of_both_directions_is_taken(equal_to_keras: Check) -> None:
    x = keras.Input((None, 3), name="x")
    states = [keras.Input((4,), name=f"state_{i}") for i in range(4)]
    model = keras.Model([x, *states], layers.Bidirectional(layers.LSTM(4))(x, initial_state=states))
    equal_to_keras(model, [sequences(3, 5, 3), *RNG.normal(size=(4, 3, 4)).astype("float32")], traced=False)


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_stacked_cells_are_one_operator_each(
    equal_to_keras: Check, operators: Count, go_backwards: bool, return_state: bool
) -> None:
    cells = [layers.LSTMCell(4, dropout=0.3), layers.GRUCell(5), layers.SimpleRNNCell(2)]
    layer = layers.RNN(cells, return_sequences=True, return_state=return_state, go_backwards=go_backwards)
    counts = operators(equal_to_keras(on_sequences(layer), sequences(3, 5, 3), traced=False))
    assert counts["LSTM"] == counts["GRU"] == counts["RNN"] == 1


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_a_custom_cell_runs_in_one_scan(
    equal_to_keras: Check, operators: Count, return_sequences: bool, go_backwards: bool
) -> None:
    layer = layers.RNN(
        Leaky(4), return_sequences=return_sequences, go_backwards=go_backwards, return_state=True
    )
    counts = operators(
        equal_to_keras(on_sequences(layer), sequences(3, 5, 3), sequences(2, 8, 3), traced=False)
    )
    assert counts["Scan"] == 1
    assert counts["Tanh"] == 1


def test_a_custom_cell_among_stacked_ones_and_in_both_directions(equal_to_keras: Check) -> None:
    cell = layers.RNN([layers.LSTMCell(4), Leaky(3)], return_sequences=True)
    equal_to_keras(on_sequences(cell), sequences(3, 5, 3), traced=False)
    both = layers.Bidirectional(layers.RNN(Leaky(3), return_sequences=True))
    equal_to_keras(on_sequences(both), sequences(3, 5, 3), traced=False)


def test_a_layer_that_adds_to_its_parent_keeps_what_it_adds(equal_to_keras: Check) -> None:
    equal_to_keras(on_sequences(Doubling(4)), sequences(3, 5, 3), traced=False)


def test_a_layer_over_constants_is_a_constant(equal_to_keras: Check, operators: Count) -> None:
    ids = keras.Input((2,), dtype="int32", name="ids")
    model = keras.Model(ids, OverTable()(ids))
    lowered = equal_to_keras(model, np.array([[1, 3], [8, 0]], np.int32), traced=False)
    assert not LOOPS & operators(lowered).keys()


def test_layers_that_are_called_twice_share_their_weights(equal_to_keras: Check) -> None:
    layer = layers.Bidirectional(layers.LSTM(4))
    first, second = keras.Input((None, 3), name="first"), keras.Input((None, 3), name="second")
    model = keras.Model([first, second], [layer(first), layer(second)])
    graph = equal_to_keras(model, [sequences(3, 5, 3), sequences(3, 2, 3)], traced=False)
    weights = [name for name in graph.graph.initializers if "kernel" in name]
    assert len(weights) == 2


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("kind", OPERATORS)
def test_other_types_are_computed_as_well_as_onnx_runtime_can(
    equal_to_keras: Check, kind: str, policy: str
) -> None:
    keras.config.set_dtype_policy(policy)
    close = {"float64": 1e-6, "mixed_float16": 2e-3, "mixed_bfloat16": 3e-2}[policy]
    layer = layers.Bidirectional(getattr(layers, kind)(4, return_sequences=True))
    equal_to_keras(on_sequences(layer), sequences(3, 5, 3), rtol=close, atol=close, traced=False)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: layers.LSTM(4, stateful=True, return_sequences=True), id="lstm"),
        pytest.param(lambda: layers.GRU(4, stateful=True), id="gru"),
        pytest.param(lambda: layers.RNN(Leaky(4), stateful=True), id="custom cell"),
        pytest.param(
            lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], stateful=True), id="stacked"
        ),
        pytest.param(lambda: layers.Bidirectional(layers.GRU(4, stateful=True)), id="bidirectional"),
    ],
)
def test_state_goes_in_and_comes_out(layer: Callable[[], keras.Layer]) -> None:
    x = keras.Input(batch_shape=(2, 5, 3), name="x")
    model = keras.Model(x, layer()(x))
    lowered = lower(model)
    session = ort.InferenceSession(ir.to_proto(lowered.model).SerializeToString())
    state = {each.input: each.initial for each in lowered.state}
    assert state
    for part in sequences(3, 2, 5, 3):
        expected = keras.ops.convert_to_numpy(model(part))
        got, *following = session.run(
            [lowered.outputs, *(each.output for each in lowered.state)], {"x": part, **state}
        )
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        state = dict(zip(state, following, strict=True))
    for each in lowered.state:
        np.testing.assert_allclose(state[each.input], each.initial, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutional_recurrence_equals_keras(equal_to_keras: Check, rank: int, data_format: str) -> None:
    @settings(max_examples=1 if rank == 3 else 6, deadline=None)  # Keras itself takes seconds in space
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        draw = data.draw
        layer = getattr(layers, f"ConvLSTM{rank}D")(
            3,
            draw(st.integers(1, 3)),
            strides=draw(st.integers(1, 2)),
            padding=draw(st.sampled_from(["valid", "same"])),
            data_format=data_format,
            use_bias=draw(st.booleans()),
            bias_initializer="normal",
            return_sequences=draw(st.booleans()),
            return_state=draw(st.booleans()),
            go_backwards=draw(st.booleans()),
            # what looks along an axis is replayed, in Keras's order of axes
            activation=draw(st.sampled_from(["tanh", "relu", "softmax"])),
            dropout=0.2,
        )
        space = (6, 5, 4)[:rank]
        sizes = (*space, 2) if data_format == "channels_last" else (2, *space)
        steps = draw(st.sampled_from([None, 4]))
        equal_to_keras(on_sequences(layer, steps, sizes), sequences(2, 4, *sizes), traced=False)

    check()


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize(
    ("inner", "sizes"),
    [
        pytest.param(lambda: layers.Dense(4, activation="relu"), (3,), id="dense"),
        pytest.param(lambda: layers.Conv2D(4, 3, strides=2), (7, 7, 3), id="convolution"),
        pytest.param(lambda: layers.LSTM(4), (6, 3), id="lstm"),
        pytest.param(lambda: layers.Bidirectional(layers.GRU(4, return_sequences=True)), (6, 3), id="gru"),
        pytest.param(lambda: layers.TimeDistributed(layers.Dense(4)), (6, 3), id="nested"),
        pytest.param(
            lambda: keras.Sequential(
                [
                    keras.Input((8, 8, 3)),
                    layers.Conv2D(4, 3),
                    layers.BatchNormalization(),
                    layers.MaxPooling2D(),
                    layers.Flatten(),
                    layers.Dense(3),
                ]
            ),
            (8, 8, 3),
            id="model",
        ),
    ],
)
def test_a_layer_distributed_over_time_runs_once(
    equal_to_keras: Check,
    operators: Count,
    inner: Callable[[], keras.Layer],
    sizes: tuple[int, ...],
    steps: int | None,
) -> None:
    layer = inner()
    graph = equal_to_keras(
        on_sequences(layers.TimeDistributed(layer), steps, sizes), sequences(4, 5, *sizes), traced=False
    )
    assert not LOOPS & set(operators(graph))
    assert max(operators(graph)[name] for name in ("MatMul", "Conv", "LSTM", "GRU")) == 1


@pytest.mark.parametrize("steps", [None, 5])
def test_a_function_distributed_over_time_may_mix_the_rows(equal_to_keras: Check, steps: int | None) -> None:
    mixing = layers.Lambda(lambda x: x - ops.mean(x, axis=0, keepdims=True), output_shape=lambda shape: shape)
    model = on_sequences(layers.TimeDistributed(mixing), steps)
    equal_to_keras(model, sequences(4, 5, 3), traced=False)


@pytest.mark.parametrize("opset", [17, 18, 22, 23])
def test_other_opsets_are_equal_too(equal_to_keras: Check, opset: int) -> None:
    x = keras.Input((None, 3), name="x")
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="ave")(x)
    y = layers.TimeDistributed(layers.Dense(3))(layers.RNN(Leaky(3), return_sequences=True)(y))
    equal_to_keras(keras.Model(x, y), sequences(3, 5, 3), opset=opset, traced=False)
