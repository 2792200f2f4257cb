"""The layers of keras.layers.core, regularization and activation equal Keras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers
from numpy.typing import NDArray

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(16)


def batch(*shape: int) -> NDArray[Any]:
    return RNG.normal(size=(3, *shape)).astype("float32")


def test_a_dense_layer_is_a_matmul_and_an_add(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    graph = equal_to_keras(single(layers.Dense(3, activation="relu"), (5,)), batch(5), predict=True)
    assert operators(graph) == {"MatMul": 1, "Add": 1, "Relu": 1}


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(4,), (None, 4), (2, None, 4)], ids=str)
def test_dense_takes_any_rank_and_type(
    equal_to_keras: Check, single: Single, shape: tuple[int | None, ...], dtype: str
) -> None:
    data = RNG.integers(0, 2, (3, *(5 if size is None else size for size in shape))).astype(dtype)
    equal_to_keras(single(layers.Dense(3), shape, dtype=dtype), data)


def test_a_sequential_that_was_called_on_data_takes_any_number_of_rows(equal_to_keras: Check) -> None:
    model = keras.Sequential([layers.Dense(4), layers.Reshape((2, 2)), layers.Dense(2)])
    model(batch(5))
    assert model.input_shape == (3, 5)
    graph = equal_to_keras(model, np.concatenate([batch(5), batch(5)]), traced=False)
    assert str(graph.graph.inputs[0].shape) == "[batch,5]"


@pytest.mark.parametrize("counts", [False, True], ids=["stateful", "counts its rows"])
def test_a_sequential_keeps_the_number_of_rows_that_its_layers_count_on(
    equal_to_keras: Check, counts: bool
) -> None:
    class Halves(layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.reshape(x, (x.shape[0] * 2, -1))

    model = keras.Sequential([Halves() if counts else layers.LSTM(2, stateful=True)])
    model(batch(2, 4))
    if counts:
        equal_to_keras(model, batch(2, 4), batched=False)
    assert lower(model).model.graph.inputs[0].shape == [3, 2, 4]


def test_a_dense_layer_with_low_rank_adapters_is_entered_with_them(
    equal_to_keras: Check, single: Single
) -> None:
    layer = layers.Dense(3)
    model = single(layer, (4,))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(RNG.normal(size=layer.lora_kernel_b.shape))
    equal_to_keras(model, batch(4))


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: layers.Dropout(0.5), id="dropout"),
        pytest.param(lambda: layers.GaussianDropout(0.5), id="gaussian-dropout"),
        pytest.param(lambda: layers.GaussianNoise(0.5), id="gaussian-noise"),
        pytest.param(lambda: layers.AlphaDropout(0.5), id="alpha-dropout"),
        pytest.param(lambda: layers.SpatialDropout1D(0.5), id="spatial-dropout"),
        pytest.param(lambda: layers.ActivityRegularization(0.1), id="activity-regularization"),
        pytest.param(lambda: layers.Identity(), id="identity"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_what_only_matters_in_training_is_gone(
    equal_to_keras: Check, single: Single, operators: Count, layer: Callable[[], keras.Layer], dtype: str
) -> None:
    graph = equal_to_keras(
        single(layer(), (4, 3), dtype=dtype), (9 * batch(4, 3)).astype(dtype), predict=True
    )
    assert operators(graph) == {"Identity": 1}  # from the graph's input to its output


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
@pytest.mark.parametrize("mask_zero", [False, True])
def test_tokens_are_embedded(equal_to_keras: Check, dtype: str, mask_zero: bool) -> None:
    x = keras.Input((None,), dtype=dtype)
    words = layers.Embedding(10, 4, mask_zero=mask_zero)(x)
    model = keras.Model(x, [words, layers.GlobalAveragePooling1D()(words)])
    data = RNG.integers(0, 10, (3, 6)).astype(dtype)
    data[:, 0] = 1
    equal_to_keras(model, data, data[:, :4])


@pytest.mark.parametrize(
    "options", [{}, {"tie_weights": False, "logit_soft_cap": 3.0}], ids=["tied", "untied"]
)
def test_a_reversible_embedding_goes_both_ways(equal_to_keras: Check, options: dict[str, Any]) -> None:
    x = keras.Input((5,), dtype="int32")
    layer = layers.ReversibleEmbedding(10, 4, **options)
    equal_to_keras(keras.Model(x, layer(layer(x), reverse=True)), RNG.integers(0, 10, (3, 5)).astype("int32"))


@pytest.mark.parametrize(
    ("equation", "output", "bias", "shape"),
    [
        ("abc,cd->abd", (None, 6), "d", (None, 3)),
        ("ab,bc->ac", 6, "c", (3,)),
        ("...x,xy->...y", 6, "y", (4, 3)),
        ("abc,cde->abde", (None, 2, 5), "de", (None, 3)),
        ("abcd,cde->abe", (None, 5), "e", (None, 2, 3)),
        ("abc,bd->adc", (4, None), None, (5, 3)),
    ],
)
def test_einsum_dense_equals_keras(
    equal_to_keras: Check,
    single: Single,
    equation: str,
    output: Any,
    bias: str | None,
    shape: tuple[Any, ...],
) -> None:
    model = single(layers.EinsumDense(equation, output, bias_axes=bias, activation="relu"), shape)
    equal_to_keras(model, batch(*(6 if size is None else size for size in shape)))


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        pytest.param(lambda: layers.ReLU(), "Relu", id="relu"),
        pytest.param(lambda: layers.ReLU(max_value=6), "Clip", id="relu6"),
        pytest.param(lambda: layers.ReLU(negative_slope=0.1), "LeakyRelu", id="relu-slope"),
        pytest.param(lambda: layers.ReLU(threshold=1.0), "ThresholdedRelu", id="relu-threshold"),
        pytest.param(lambda: layers.ReLU(2.0, 0.1, 0.5), "ThresholdedRelu", id="relu-all"),
        pytest.param(lambda: layers.LeakyReLU(0.2), "LeakyRelu", id="leaky-relu"),
        pytest.param(lambda: layers.ELU(0.5), "Elu", id="elu"),
        pytest.param(lambda: layers.Softmax(), "Softmax", id="softmax"),
        pytest.param(lambda: layers.Softmax(axis=1), "Softmax", id="softmax-first"),
        pytest.param(lambda: layers.Softmax(axis=[1, 2]), "ReduceLogSumExp", id="softmax-two"),
        pytest.param(lambda: layers.Activation("gelu"), "Gelu", id="activation"),
    ],
)
def test_an_activation_layer_is_its_operator(
    equal_to_keras: Check, single: Single, operators: Count, layer: Callable[[], keras.Layer], operator: str
) -> None:
    assert operators(equal_to_keras(single(layer(), (4, 3)), 3 * batch(4, 3)))[operator] == 1


@pytest.mark.parametrize(
    ("slopes", "written"),
    [
        ([-0.9, 0.25, 1.0], {"Mul": 1, "Max": 1}),
        ([-0.9, 0.25, 1.5], {"Relu": 2, "Neg": 1, "Mul": 1, "Sub": 1}),
        ([0.0, 0.0, 0.0], {"Relu": 2, "Neg": 1, "Mul": 1, "Sub": 1}),
    ],
    ids=["flat", "steep", "untrained"],
)
@pytest.mark.parametrize("shared", [None, [1]])
def test_a_sloped_relu_is_written_with_operators_that_are_fast(
    equal_to_keras: Check,
    operators: Count,
    slopes: list[float],
    written: dict[str, int],
    shared: list[int] | None,
) -> None:
    layer = layers.PReLU(shared_axes=shared)
    model = keras.Sequential([keras.Input((4, 3)), layer])
    layer.alpha.assign(np.broadcast_to(slopes, layer.alpha.shape))
    data = 3 * batch(4, 3)
    data[0, 0] = np.inf
    assert operators(equal_to_keras(model, data)) == written


def test_softmax_leaves_out_what_is_masked(equal_to_keras: Check) -> None:
    x, mask = keras.Input((4,)), keras.Input((4,), dtype="bool")
    model = keras.Model([x, mask], layers.Softmax()(x, mask=mask))
    keep = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    equal_to_keras(model, [batch(4), keep])


def test_masked_steps_do_not_count(equal_to_keras: Check) -> None:
    x = keras.Input((None, 3))
    masked = layers.Masking(mask_value=2.0)(x)
    data = batch(5, 3)
    data[0, 2:] = data[1, :1] = 2.0
    equal_to_keras(keras.Model(x, [masked, layers.GlobalAveragePooling1D()(masked)]), data)


@pytest.mark.parametrize("name", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
@pytest.mark.parametrize("shapes", [[(4, 3), (4, 3)], [(4, 3), (1, 3)], [(None, 3), (3,)]], ids=str)
def test_tensors_are_merged(
    equal_to_keras: Check, single: Single, name: str, shapes: list[tuple[Any, ...]]
) -> None:
    data = [batch(*(5 if size is None else size for size in shape)) for shape in shapes]
    equal_to_keras(single(getattr(layers, name)(), *shapes), data)


@pytest.mark.parametrize(("axis", "second"), [(-1, (None, 2)), (1, (2, 3))])
def test_tensors_are_concatenated(
    equal_to_keras: Check, single: Single, axis: int, second: tuple[Any, ...]
) -> None:
    data = [batch(5, 3), batch(*(5 if size is None else size for size in second))]
    equal_to_keras(single(layers.Concatenate(axis=axis), (None, 3), second), data)


@pytest.mark.parametrize(
    ("axes", "first", "second"),
    [
        (1, (4,), (4,)),
        (-1, (3, 4), (5, 4)),
        ((2, 1), (3, 4), (4, 5)),
        ((1, 2), (4,), (3, 4)),
        ((3, 3), (2, 3, 4), (2, 3, 4)),
        (2, (None, 4), (None, 4)),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_tensors_are_multiplied_along_axes(
    equal_to_keras: Check,
    single: Single,
    axes: Any,
    first: tuple[Any, ...],
    second: tuple[Any, ...],
    normalize: bool,
) -> None:
    data = [batch(*(5 if size is None else size for size in shape)) for shape in (first, second)]
    equal_to_keras(single(layers.Dot(axes, normalize=normalize), first, second), data)


def test_a_lambda_of_operations_is_replayed(equal_to_keras: Check, single: Single) -> None:
    equal_to_keras(single(layers.Lambda(lambda x: keras.ops.sin(x) * 2 + x[:, :1]), (4,)), batch(4))


def _doubled(part: Any) -> None:
    """Replace a method on the object, as users do who have no class of their own."""
    original = part.call

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        return (result[0] * 2, *result[1:]) if isinstance(result, tuple) else result * 2

    part.call = call


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        pytest.param(lambda: layers.Dense(3), lambda layer: layer, id="dense"),
        pytest.param(lambda: layers.BatchNormalization(), lambda layer: layer, id="normalization"),
        pytest.param(lambda: layers.LSTM(3), lambda layer: layer, id="lstm"),
        pytest.param(lambda: layers.GRU(3), lambda layer: layer.cell, id="cell"),
        pytest.param(lambda: layers.ConvLSTM1D(2, 1), lambda layer: layer.cell, id="cell of convolutions"),
        pytest.param(
            lambda: layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)]), lambda layer: layer.cell, id="stack"
        ),
        pytest.param(
            lambda: layers.Bidirectional(layers.LSTM(3)), lambda layer: layer.backward_layer, id="direction"
        ),
        pytest.param(
            lambda: layers.TimeDistributed(layers.Dense(3)), lambda layer: layer.layer, id="wrapped"
        ),
    ],
)
def test_a_method_that_was_replaced_on_a_layer_is_replayed(
    equal_to_keras: Check, single: Single, layer: Any, part: Any
) -> None:
    made = layer()
    shape = (3, 5, 4) if isinstance(made, layers.ConvLSTM1D) else (5, 4)
    model = single(made, shape)
    _doubled(part(made))
    equal_to_keras(model, batch(*shape))


def test_a_call_that_was_replaced_on_a_class_of_keras_is_replayed(
    equal_to_keras: Check, single: Single, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = single(layers.Dense(3), (4,))
    monkeypatch.setattr(layers.Dense, "call", lambda layer, x, training=None: x @ layer.kernel * 5.0)
    equal_to_keras(model, batch(4))


@pytest.mark.parametrize("name", ["TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
def test_a_layer_of_another_framework_is_refused_by_name(name: str) -> None:
    class Holding(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            cls = getattr(layers, name)
            self.inner = cls.__new__(cls)  # its framework need not be installed
            keras.Layer.__init__(self.inner, name="foreign")
            self.inner.built = True

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs)

    with pytest.raises(ConversionError, match=rf"'foreign' \({name}\).*write it with Keras layers"):
        lower(Holding(), input_signature=keras.KerasTensor((None, 3)))


class Masking(layers.Layer):
    """A layer that masks its kernel before it uses it, as PixelCNN's convolutions do."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.inner = layers.Conv1D(2, 3)
        self.inner.build(shape)
        self.mask = np.array([1.0, 1.0, 0.0], "float32").reshape(3, 1, 1)

    def call(self, x: Any) -> Any:
        self.inner.kernel.assign(self.inner.kernel * self.mask)
        return self.inner(x)


def test_a_weight_that_the_call_masks_is_a_constant(equal_to_keras: Check, single: Single) -> None:
    layer = Masking()
    model = single(layer, (7, 4))
    assert lower(model).state == ()
    assert np.all(np.asarray(layer.inner.kernel)[2]), "the source has been changed"
    equal_to_keras(model, batch(7, 4))


def test_a_number_that_grows_with_each_call_is_state(single: Single) -> None:
    class Growing(layers.Layer):
        def build(self, _: Any) -> None:
            self.age = self.add_weight(shape=(), trainable=False, initializer="zeros")

        def call(self, x: Any) -> Any:
            self.age.assign(self.age + 1.0)
            return x * self.age

    layer = Growing()
    model = single(layer, (3,))
    layer.age.assign(2.0)
    (state,) = lower(model).state
    assert state.initial == layer.age.numpy() == 2.0
