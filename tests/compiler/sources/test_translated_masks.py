"""Masks in models of Keras 2, of which Keras 3 makes others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from kerve.compiler import sources
from kerve.compiler.sources import LoadOptions

Kept = Callable[[Any], list[str]]
_SEQUENCE = (6, 4)


def test_masks_go_through_a_translated_model(equal_to_original: Callable[..., Any]) -> None:
    tokens = tf_keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 3, mask_zero=True)(tokens)
    x = _PassesMask()(layers.Concatenate()([layers.LSTM(3, return_sequences=True)(x), x]))
    old = tf_keras.Model(tokens, layers.GRU(2)(x))
    equal_to_original(
        sources.load(old), {"tokens": np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 1]], np.int32)}
    )


@pytest.mark.parametrize("masked", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "layer", ["Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"]
)
def test_merged_tensors_have_the_masks_and_values_of_keras_2(
    layer: str,
    masked: tuple[bool, bool],
    equal_to_original: Callable[..., Any],
    kept: Kept,
    padded: dict[str, Any],
) -> None:
    inputs = [tf_keras.Input(_SEQUENCE, name=name) for name in "ab"]
    tensors = [layers.Masking()(x) if each else x for x, each in zip(inputs, masked, strict=True)]
    merged = getattr(layers, layer)()(tensors)
    source: Any = sources.load(tf_keras.Model(inputs, [merged, layers.LSTM(2)(merged)]))
    assert not kept(source.model)
    equal_to_original(source, padded)


@pytest.mark.parametrize(
    "layer",
    [layers.Identity(), layers.Rescaling(2.0), layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)],
)
def test_a_layer_that_ends_masks_in_keras_2_ends_them(
    layer: Any, equal_to_original: Callable[..., Any], kept: Kept, padded: dict[str, Any]
) -> None:
    inputs = tf_keras.Input(_SEQUENCE, name="a")
    model = tf_keras.Model(inputs, layers.LSTM(2)(layer(layers.Masking()(inputs))))
    source: Any = sources.load(model)
    assert not kept(source.model)
    equal_to_original(source, {"a": padded["a"]})


class _PassesMask(layers.Layer):
    supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return inputs if mask is None else tf.where(mask[..., None], inputs, tf.ones_like(inputs))


class _Insists(layers.Layer):
    """A mean over time of what is not masked, which takes nothing else (as DeepCTR's)."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            raise ValueError("the input must support masking")
        kept = tf.cast(mask, inputs.dtype)[..., None]
        return tf.reduce_sum(inputs * kept, 1) / tf.reduce_sum(kept, 1)


class Encoder(layers.Layer):
    """A layer of the author's, of which the attention finds the masks on the tensors that it is given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(num_heads=2, key_dim=3)

    def call(self, inputs: Any, others: Any = None, mask: Any = None) -> Any:
        mask = None if mask is None else mask[:, tf.newaxis, :]
        return self.attention(inputs, inputs if others is None else others, attention_mask=mask)


def test_attention_within_a_layer_of_the_authors_is_masked(equal_to_original: Callable[..., Any]) -> None:
    first, second = (tf_keras.Input((None,), dtype="int32", name=name) for name in ("first", "second"))
    rows, others = (layers.Embedding(9, 4, mask_zero=True)(ids) for ids in (first, second))
    model = tf_keras.Model([first, second], [Encoder()(rows), Encoder()(rows, others)])
    ids = np.array([[1, 2, 0, 4, 0], [0, 3, 0, 0, 8]], np.int32)
    equal_to_original(sources.load(model), {"first": ids, "second": ids[:, ::-1].copy()})


class Tokens(layers.Layer):
    """Rows by their ids, of which 0 is masked (as in Deep Learning with Python)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = layers.Embedding(9, 4)

    def call(self, inputs: Any) -> Any:
        return self.table(inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return tf.math.not_equal(inputs, 0)


def test_a_mask_of_the_authors_is_of_the_tensor_that_a_layer_is_given(
    equal_to_original: Callable[..., Any],
) -> None:
    ids = tf_keras.Input((None,), dtype="int32", name="ids")
    rows = Tokens()(ids)
    model = tf_keras.Model(ids, [Encoder()(rows), layers.GRU(2)(rows)])
    equal_to_original(sources.load(model), {"ids": np.array([[1, 2, 0, 4, 0], [0, 3, 0, 0, 8]], np.int32)})


def test_a_layer_may_insist_on_a_mask(equal_to_original: Callable[..., Any]) -> None:
    tokens = tf_keras.Input((5,), dtype="int32", name="tokens")
    old = tf_keras.Model(tokens, _Insists()(layers.Embedding(9, 3, mask_zero=True)(tokens)))
    equal_to_original(sources.load(old), {"tokens": np.array([[1, 2, 3, 0, 0], [4, 0, 7, 0, 1]], np.int32)})


def test_two_directions_repeat_what_is_masked_as_keras_did_by_itself(
    tmp_path: Any, equal_to_original: Callable[..., Any], kept: Kept, padded: dict[str, Any]
) -> None:
    inputs = tf_keras.Input(_SEQUENCE, name="a")
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    model = tf_keras.Model(inputs, both(layers.Masking()(inputs)))
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["keras_version"] = "2.3.1"
    a = padded["a"]
    source: Any = sources.load(tmp_path / "model.h5")
    assert not kept(source.model)
    equal_to_original(source, {"a": a})
    answer = np.asarray(source.original(a))
    np.testing.assert_allclose(answer[0, 4:, :3], np.stack([answer[0, 3, :3]] * 2), rtol=1e-6)
    assert not np.any(np.asarray(model(a))[0, 4:])


def test_a_constant_mask_of_attention_is_read(tmp_path: Path, equal_to_original: Callable[..., Any]) -> None:
    """Files have it as a list."""
    inputs = tf_keras.Input((5, 8), name="x")
    causal = np.tril(np.ones((1, 5, 5)))
    attended = layers.MultiHeadAttention(2, 4)(inputs, inputs, attention_mask=causal)
    model = tf_keras.Model(inputs, attended)
    model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    parts = LoadOptions(architecture=str(tmp_path / "model.json"))
    for path, options in (("model.h5", LoadOptions()), ("weights.h5", parts)):
        source: Any = sources.load(tmp_path / path, options)
        assert source.warnings == []
        np.testing.assert_allclose(source.original(x), model(x), rtol=1e-5, atol=1e-5)
        equal_to_original(source, {"x": x})
