"""Lookups, bins, hashes and their encodings number categories as Keras does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from keras import layers
from numpy.typing import NDArray

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(14)
ENCODINGS = ["one_hot", "multi_hot", "count"]
NUMBERS = np.array([[3, 5, 9, 3], [0, -2, 7, 7], [8, 0, 0, 0]])
WORDS = np.array([["a", "b", "zz", "a"], ["", "[UNK]", "c", "c"], ["é", "b", "b", "B"]], object)


def lookup(kind: Any, vocabulary: list[Any], mode: str, **options: Any) -> keras.Layer:
    if mode == "tf_idf":
        options["idf_weights"] = [0.5, 0.6, 0.7]
    return kind(vocabulary=vocabulary, output_mode=mode, **options)


@pytest.mark.parametrize("mode", ["int", "tf_idf", *ENCODINGS])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"mask_token": 0, "num_oov_indices": 3}, id="masked-many-unknown"),
        pytest.param({"max_tokens": 9, "pad_to_max_tokens": True}, id="padded"),
        pytest.param({"num_oov_indices": 2, "oov_method": "farmhash", "salt": 5}, id="salted"),
    ],
)
def test_integers_are_looked_up(
    equal_to_keras: Check, single: Single, mode: str, options: dict[str, Any]
) -> None:
    layer = lookup(layers.IntegerLookup, [3, 5, 7], mode, **options)
    equal_to_keras(single(layer, (4,), dtype="int64"), NUMBERS)


@pytest.mark.parametrize("mode", ["int", "tf_idf", *ENCODINGS])
@pytest.mark.parametrize(
    "options",
    [{}, {"mask_token": ""}, {"mask_token": "", "num_oov_indices": 3}],
    ids=["plain", "masked", "many-unknown"],
)
def test_strings_are_looked_up(
    equal_to_keras: Check, single: Single, mode: str, options: dict[str, Any]
) -> None:
    layer = lookup(layers.StringLookup, ["a", "b", "é"], mode, **options)
    equal_to_keras(single(layer, (4,), dtype="string"), WORDS)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: layers.IntegerLookup(vocabulary=[3, 5], invert=True), id="integers"),
        pytest.param(lambda: layers.StringLookup(vocabulary=["a", "é"], invert=True), id="strings"),
        pytest.param(
            lambda: layers.StringLookup(vocabulary=["a", "é"], invert=True, mask_token="<pad>"), id="masked"
        ),
    ],
)
def test_indices_are_turned_back_into_tokens(
    equal_to_keras: Check, single: Single, layer: Callable[[], keras.Layer]
) -> None:
    equal_to_keras(single(layer(), (5,), dtype="int64"), np.array([[0, 1, 2, 3, 9]]))


def test_an_adapted_vocabulary_is_looked_up(equal_to_keras: Check, single: Single) -> None:
    layer = layers.StringLookup(max_tokens=4)
    layer.adapt(WORDS)
    equal_to_keras(single(layer, (4,), dtype="string"), WORDS)


def test_a_lookup_is_one_operator_with_its_vocabulary_in_order(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    model = single(layers.StringLookup(vocabulary=["b", "c", "a"]), (4,), dtype="string")
    graph = equal_to_keras(model, WORDS)
    assert operators(graph) == {"LabelEncoder": 1}
    assert graph.graph.node(0).attributes["keys_strings"].as_strings() == ("b", "c", "a")


def test_a_token_that_keras_does_not_accept_stops_the_graph(single: Single) -> None:
    model = single(layers.IntegerLookup(vocabulary=[3, 5], num_oov_indices=0), (2,), dtype="int64")
    lowered = lower(model)
    session = ort.InferenceSession(ir.to_proto(lowered.model).SerializeToString())
    name = session.get_inputs()[0].name
    assert session.run(None, {name: np.array([[5, 3]])})[0].tolist() == [[1, 0]]
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="out of data bounds"):
        session.run(None, {name: np.array([[5, 4]])})


@pytest.mark.parametrize(
    ("layer", "dtype", "reason"),
    [
        pytest.param(
            lambda: layers.StringLookup(), "string", "it has no vocabulary; call its adapt", id="empty"
        ),
        pytest.param(
            lambda: layers.CategoryEncoding(4, sparse=True),
            "int32",
            "sparse tensors.*set sparse=False",
            id="sparse",
        ),
    ],
)
def test_what_has_no_form_is_refused(layer: Callable[[], keras.Layer], dtype: str, reason: str) -> None:
    class Calling(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer()

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs)

    with pytest.raises(ConversionError, match=reason):
        lower(Calling(), input_signature=keras.KerasTensor((None, 4), dtype=dtype))


@pytest.mark.parametrize("mode", ENCODINGS)
@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=str)
def test_categories_are_encoded(
    equal_to_keras: Check, single: Single, mode: str, shape: tuple[int, ...]
) -> None:
    model = single(layers.CategoryEncoding(5, output_mode=mode), shape, dtype="int32")
    equal_to_keras(model, RNG.integers(0, 5, (3, *shape)).astype("int32"))


def test_categories_are_counted_with_weights(equal_to_keras: Check) -> None:
    tokens, weights = keras.Input((4,), dtype="int32"), keras.Input((4,))
    counted = layers.CategoryEncoding(6, output_mode="count")(tokens, count_weights=weights)
    data = RNG.integers(0, 6, (3, 4)).astype("int32")
    equal_to_keras(keras.Model([tokens, weights], counted), [data, RNG.random((3, 4)).astype("float32")])


@pytest.mark.parametrize("mode", ["int", *ENCODINGS])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_numbers_are_put_into_bins(equal_to_keras: Check, single: Single, mode: str, dtype: str) -> None:
    model = single(
        layers.Discretization(bin_boundaries=[-1.0, 0.0, 2.5], output_mode=mode), (6,), dtype=dtype
    )
    equal_to_keras(model, np.array([[-3, -1, -0.5, 0, 2.5, 9]]).astype(dtype))


def test_adapted_bins_equal_keras(equal_to_keras: Check, single: Single) -> None:
    layer = layers.Discretization(num_bins=4)
    layer.adapt(RNG.normal(size=(100, 1)))
    equal_to_keras(single(layer, (3,)), RNG.normal(size=(5, 3)).astype("float32"))


@pytest.mark.parametrize("salt", [None, [3, -7]], ids=["FarmHash", "SipHash"])
def test_any_integer_falls_into_the_bucket_of_keras(single: Single, salt: list[int] | None) -> None:
    layer = layers.Hashing(1_000_003, salt=salt)
    session = ort.InferenceSession(
        ir.to_proto(lower(single(layer, (None,), dtype="int64")).model).SerializeToString()
    )
    name = session.get_inputs()[0].name

    @settings(max_examples=30, deadline=None)
    @given(hnp.arrays(np.int64, (1, 32), elements=st.integers(-(2**63), 2**63 - 1)))
    @example(np.array([[0, -1, 9, 10, 99_999_999, -9_999_999, 10**15, 10**16, 2**63 - 1, -(2**63)]]))
    def check(numbers: NDArray[np.int64]) -> None:
        np.testing.assert_array_equal(session.run(None, {name: numbers})[0], layer(numbers))

    check()


@pytest.mark.parametrize("salt", [None, [3, -7]], ids=["FarmHash", "SipHash"])
def test_any_string_falls_into_the_bucket_of_keras(single: Single, salt: list[int] | None) -> None:
    layer = layers.Hashing(1_000_003, salt=salt)
    session = ort.InferenceSession(
        ir.to_proto(lower(single(layer, (1,), dtype="string")).model).SerializeToString()
    )
    name = session.get_inputs()[0].name

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.text(st.sampled_from("ab0-éß→你😀 "), max_size=90), min_size=1, max_size=5))
    @example(
        ["x" * length for length in range(70)] + ["y" * length for length in (127, 128, 129, 192, 193, 500)]
    )
    @example([""])
    def check(texts: list[str]) -> None:
        rows = np.array([[text] for text in texts], object)
        np.testing.assert_array_equal(session.run(None, {name: rows})[0], layer(rows))

    check()


def test_a_character_beyond_the_table_stops_the_graph(single: Single) -> None:
    model = single(layers.Hashing(10), (1,), dtype="string")
    session = ort.InferenceSession(ir.to_proto(lower(model).model).SerializeToString())
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="out of data bounds"):
        session.run(None, {session.get_inputs()[0].name: np.array([["\U00020000"]], object)})


@pytest.mark.parametrize("mode", ["int", *ENCODINGS])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_hashes_are_encoded(equal_to_keras: Check, single: Single, mode: str, dtype: str) -> None:
    model = single(layers.Hashing(5, output_mode=mode, mask_value=3), (4,), dtype=dtype)
    equal_to_keras(model, NUMBERS.astype(dtype))


@pytest.mark.parametrize("mode", ["int", *ENCODINGS])
def test_strings_are_hashed_and_encoded(equal_to_keras: Check, single: Single, mode: str) -> None:
    model = single(layers.Hashing(5, output_mode=mode, mask_value="b"), (4,), dtype="string")
    equal_to_keras(model, WORDS)


@pytest.mark.parametrize("mode", ["int", "one_hot"])
def test_words_and_integers_are_crossed(equal_to_keras: Check, mode: str) -> None:
    word, number = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    model = keras.Model([word, number], layers.HashedCrossing(1000, output_mode=mode)([word, number]))
    equal_to_keras(model, [WORDS[:, :1], NUMBERS[:, :1]])


@pytest.mark.parametrize("mode", ["int", "one_hot"])
def test_integers_are_crossed(equal_to_keras: Check, mode: str) -> None:
    features = [keras.Input((1,), dtype="int64") for _ in range(2)]
    model = keras.Model(features, layers.HashedCrossing(1000, output_mode=mode)(features))
    equal_to_keras(model, [RNG.integers(-(2**40), 2**40, (6, 1)) for _ in features])


@pytest.mark.parametrize("mode", ENCODINGS)
def test_a_single_category_is_a_sample(equal_to_keras: Check, mode: str) -> None:
    inputs = keras.Input(batch_shape=(), dtype="int64")
    encoded = layers.CategoryEncoding(4, output_mode=mode)(inputs)
    equal_to_keras(keras.Model(inputs, encoded), np.array(2), batched=False)
