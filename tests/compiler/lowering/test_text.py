"""TextVectorization standardizes, splits and numbers texts as TensorFlow does."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tensorflow as tf
from hypothesis import given, settings
from keras import layers

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Single = Callable[..., keras.Model]

TEXTS = np.array(
    [
        ["Hello world!"],
        ["foo bar, baz"],
        ["  hello \t\n  Hello"],
        [""],
        ["World.\tfoo\r\nHELLO"],
        ["don't (stop) É é"],
        ["a " * 40 + "hello"],
        ["...!?"],
    ],
    object,
)
VOCABULARY = ["hello", "world", "foo", "é", "hello world", "bar baz", "foo bar baz", "dont", "Hello", "É"]


def _reviews(texts: Any) -> Any:
    """What Keras's examples make of reviews that were pages."""
    plain = tf.strings.regex_replace(tf.strings.lower(texts), "<br />", " ")
    return tf.strings.regex_replace(plain, f"([{re.escape(string.punctuation)}])", r" \1")


def _squeezed(texts: Any) -> Any:
    return tf.strings.regex_replace(texts, "l+", "l")


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_function_of_the_authors_standardizes(
    equal_to_keras: Check, single: Single, shape: tuple[int, ...]
) -> None:
    vocabulary = ["fine", "it", "!", ".", "br", "<", "well"]
    layer = layers.TextVectorization(vocabulary=vocabulary, standardize=_reviews, output_sequence_length=9)
    texts = ["Fine.<br /><br />It is<br />", "<br />", "", "Well, it<br/>Fine!", "<<br />"]
    data = np.array(texts, object).reshape(-1, *shape)
    equal_to_keras(single(layer, shape, dtype="string"), data)


def test_whether_a_pattern_matches_all_of_a_text(equal_to_keras: Check, single: Single) -> None:
    class Matches(layers.Layer):
        def call(self, texts: Any) -> Any:
            return tf.strings.regex_full_match(texts, r"[\w.]+@\w+\.(de|com)")

    data = np.array([["a.b@c.de"], ["a@c.com "], ["A@B.com"], [""]], object)
    equal_to_keras(single(Matches(), (1,), dtype="string"), data)


@pytest.mark.parametrize("split", ["whitespace", "character", None])
@pytest.mark.parametrize("standardize", ["lower_and_strip_punctuation", "lower", "strip_punctuation", None])
def test_texts_are_standardized_and_split(
    equal_to_keras: Check, single: Single, standardize: str | None, split: str | None
) -> None:
    vocabulary = list("helowrdHÉé") if split == "character" else VOCABULARY
    layer = layers.TextVectorization(vocabulary=vocabulary, standardize=standardize, split=split)
    equal_to_keras(single(layer, (1,), dtype="string"), TEXTS)


@pytest.mark.parametrize("length", [1, 4, 60])
@pytest.mark.parametrize("split", ["whitespace", None])
def test_texts_are_cut_and_padded_to_a_length(
    equal_to_keras: Check, single: Single, length: int, split: str | None
) -> None:
    layer = layers.TextVectorization(vocabulary=VOCABULARY, output_sequence_length=length, split=split)
    equal_to_keras(single(layer, (1,), dtype="string"), TEXTS)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"output_mode": "multi_hot"}, id="multi_hot"),
        pytest.param({"output_mode": "count"}, id="count"),
        pytest.param({"output_mode": "tf_idf", "idf_weights": [0.1] * len(VOCABULARY)}, id="tf_idf"),
        pytest.param({"output_mode": "count", "max_tokens": 20, "pad_to_max_tokens": True}, id="padded"),
    ],
)
def test_words_are_counted(equal_to_keras: Check, single: Single, options: dict[str, Any]) -> None:
    layer = layers.TextVectorization(vocabulary=VOCABULARY, **options)
    equal_to_keras(single(layer, (1,), dtype="string"), TEXTS)


@pytest.mark.parametrize("mode", ["int", "count"])
@pytest.mark.parametrize("ngrams", [2, (2,), (3, 1), 3], ids=str)
def test_words_are_joined_to_ngrams(equal_to_keras: Check, single: Single, ngrams: Any, mode: str) -> None:
    layer = layers.TextVectorization(vocabulary=VOCABULARY, ngrams=ngrams, output_mode=mode)
    equal_to_keras(single(layer, (1,), dtype="string"), TEXTS)


def test_one_text_for_each_row_needs_no_axis_of_its_own(equal_to_keras: Check, single: Single) -> None:
    layer = layers.TextVectorization(vocabulary=VOCABULARY)
    equal_to_keras(single(layer, (), dtype="string"), TEXTS[:, 0])


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot"])
def test_whole_texts_are_encoded(equal_to_keras: Check, single: Single, mode: str) -> None:
    layer = layers.TextVectorization(vocabulary=VOCABULARY, split=None, output_mode=mode)
    equal_to_keras(single(layer, (1,), dtype="string"), TEXTS)


def test_texts_of_nothing_give_rows_of_nothing(equal_to_keras: Check, single: Single) -> None:
    layer = layers.TextVectorization(vocabulary=VOCABULARY)
    equal_to_keras(single(layer, (1,), dtype="string"), np.array([[""], ["!"]], object))


def test_an_adapted_layer_feeds_a_model(equal_to_keras: Check) -> None:
    vectorize = layers.TextVectorization(max_tokens=8, output_sequence_length=6)
    vectorize.adapt(TEXTS)
    x = keras.Input((1,), dtype="string")
    words = layers.Embedding(8, 4, mask_zero=True)(vectorize(x))
    equal_to_keras(keras.Model(x, layers.GlobalAveragePooling1D()(words)), TEXTS)


def test_any_text_is_split_as_keras_splits_it(single: Single) -> None:
    layer = layers.TextVectorization(vocabulary=["a", "b", "ab", "ä", "0"], output_sequence_length=8)
    session = ort.InferenceSession(
        ir.to_proto(lower(single(layer, (1,), dtype="string")).model).SerializeToString()
    )
    name = session.get_inputs()[0].name
    letters = st.sampled_from("aAbB0ä \t\n\v\f\r.,'-\u00a0\u2003😀")

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(letters, max_size=24), min_size=1, max_size=4))
    def check(texts: list[str]) -> None:
        rows = np.array([[text] for text in texts], object)
        np.testing.assert_array_equal(session.run(None, {name: rows})[0], layer(rows))

    check()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"split": tf.strings.split}, "split is a Python function", id="function"),
        pytest.param(
            {"standardize": _squeezed}, r"standardize: ONNX cannot replace what matches 'l\+'", id="pattern"
        ),
        pytest.param({"ragged": True}, "ragged tensors, which ONNX does not have", id="ragged"),
        pytest.param({"ngrams": 2, "split": None}, "joins whole texts to n-grams", id="whole-texts"),
    ],
)
def test_what_has_no_form_is_refused(single: Single, options: dict[str, Any], reason: str) -> None:
    model = single(layers.TextVectorization(vocabulary=VOCABULARY, **options), (1,), dtype="string")
    with pytest.raises(ConversionError, match=reason):
        lower(model)


def test_an_opset_without_string_operators_is_refused_with_the_one_that_has_them(single: Single) -> None:
    model = single(layers.TextVectorization(vocabulary=VOCABULARY), (1,), dtype="string")
    with pytest.raises(ConversionError, match="opset 20 or newer"):
        lower(model, opset=19)


def test_that_only_onnx_runtime_can_run_it_is_said(single: Single) -> None:
    model = single(layers.TextVectorization(vocabulary=VOCABULARY), (1,), dtype="string")
    assert any("Tokenizer" in warning for warning in lower(model).warnings)
