"""SavedModels whose layers Keras 2 builds again from their configuration: are they what was saved?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from kerve.compiler import sources
from kerve.compiler.sources.options import LoadOptions

_X = {"x": np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)}


def _saved(folder: Path, layer: Callable[..., Any], **options: Any) -> tuple[Path, tf_keras.Model]:
    inputs = tf_keras.Input((5, 4), name="x")
    model = tf_keras.Model(inputs, layer(inputs))
    model.save(folder / "saved", save_format="tf", **options)
    return folder / "saved", model


def test_what_a_configuration_does_not_tell_is_taken_from_the_graph(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    path, model = _saved(tmp_path, lambda x: layers.Attention(causal=True, name="attended")([x, x]))
    source: Any = sources.load(path)
    assert "compute something else than the saved graph, in 'attended'" in " ".join(source.warnings)
    equal_to_original(source, _X)
    lowered = source.lower(21)
    np.testing.assert_allclose(source.reference(lowered)(_X)["attended"], model(_X["x"]), rtol=1e-5)


@pytest.mark.parametrize("name", ["saved", "model.h5"])
@pytest.mark.parametrize("boundary", [60.0, 30.0])
def test_columns_of_one_name_have_buckets_of_their_own(name: str, boundary: float, tmp_path: Path) -> None:
    """TensorFlow takes two columns of one name for one, when it builds them again."""
    column = tf.feature_column
    age, size = column.numeric_column("age"), column.numeric_column("size")
    old, tall = column.bucketized_column(age, [boundary]), column.bucketized_column(size, [0.0])
    columns = [
        column.bucketized_column(age, [20.0, 40.0]),
        column.indicator_column(column.crossed_column([old, tall], 50)),
    ]
    inputs = {name: tf_keras.Input((1,), name=name) for name in ("age", "size")}
    model = tf_keras.Model(inputs, layers.DenseFeatures(columns)(inputs))
    model.save(tmp_path / name)
    source: Any = sources.load(tmp_path / name)
    people = {
        "age": np.array([[10.0], [30.0], [50.0], [70.0]], np.float32),
        "size": np.array([[-1.0], [1.0], [-1.0], [1.0]], np.float32),
    }
    (answer,) = source.reference(source.lower(21))(people).values()
    np.testing.assert_array_equal(answer, model(people))


@pytest.mark.parametrize("name", ["stateful", "drawn", "ids", "usual"])
def test_layers_that_answer_as_saved_stay(name: str, tmp_path: Path) -> None:
    inputs = tf_keras.Input((5, 4), batch_size=3 if name == "stateful" else None, name="x")
    made = {
        "stateful": layers.LSTM(2, stateful=True),
        "drawn": layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x))),
        "ids": layers.Embedding(8, 2),
        "usual": layers.LayerNormalization(axis=[1, 2]),
    }
    model = tf_keras.Model(inputs, made[name](inputs))
    model.save(tmp_path / "saved", save_format="tf")
    said = " ".join(sources.load(tmp_path / "saved", LoadOptions(trust=True)).warnings)
    assert "compute something else" not in said
    assert "signature" not in said


def test_a_graph_that_tensorflow_would_rewrite_wrongly_runs(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    path, _ = _saved(tmp_path, layers.LayerNormalization(axis=[1, 2]))
    equal_to_original(sources.load(path, LoadOptions(signature="serving_default")), _X)


def test_a_signature_of_something_else_is_told(tmp_path: Path) -> None:
    def best(x: Any) -> dict[str, Any]:
        return {"best": tf.argmax(x, -1)}

    signature = tf.function(best).get_concrete_function(tf.TensorSpec((None, 5, 4), tf.float32, "x"))
    path, _ = _saved(tmp_path, layers.Dense(2, name="scores"), signatures=signature)
    said = " ".join(sources.load(path).warnings)
    assert "outputs scores; to compile the signature, give --signature serving_default" in said
