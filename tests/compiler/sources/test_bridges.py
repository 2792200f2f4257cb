"""Files of Keras 2 that are read with layers which their author has written again, for Keras 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tf_keras

from kerve.compiler import sources
from kerve.compiler.sources.options import LoadOptions

_X = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)


def _cell(base: Any) -> Any:
    """Return the class of a cell of an RNN, in either Keras."""

    class Cell(base):
        def __init__(self, units: int, **options: Any) -> None:
            super().__init__(**options)
            self.units = self.state_size = self.output_size = units

        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(name="kernel", shape=(shape[-1], self.units))
            self.recurrent = self.add_weight(name="recurrent", shape=(self.units, self.units))
            self.built = True

        def call(self, inputs: Any, states: Any) -> Any:
            new = inputs @ self.kernel + states[0] @ self.recurrent
            return new, [new]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    return Cell


def _block(its: Any) -> Any:
    """Return the class of a layer that has an LSTM, which has random numbers in Keras 3, in either Keras."""

    class Block(its.layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.rnn = its.layers.Bidirectional(its.layers.LSTM(2, dropout=0.5, return_sequences=True))

        def call(self, inputs: Any) -> Any:
            return inputs + self.rnn(inputs)

    return Block


def _model(layer: Any) -> tf_keras.Model:
    inputs = tf_keras.Input((5, 4), name="x")
    return tf_keras.Model(inputs, layer(inputs))


def _answers_alike(source: Any, model: tf_keras.Model) -> None:
    (answer,) = source.reference(source.lower(21))({"x": _X}).values()
    np.testing.assert_allclose(answer, model(_X), rtol=1e-5, atol=1e-6)


def test_a_cell_of_an_rnn_is_read(tmp_path: Path) -> None:
    cells = [_cell(tf_keras.layers.Layer)(3), tf_keras.layers.GRUCell(2)]
    model = _model(tf_keras.layers.RNN(cells, return_sequences=True))
    model.save(tmp_path / "model.h5")
    source = sources.load(tmp_path / "model.h5", custom_objects={"Cell": _cell(keras.layers.Layer)})
    _answers_alike(source, model)


def test_weights_are_read_whatever_is_random(tmp_path: Path) -> None:
    model = _model(_block(tf_keras)())
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    own = {"Block": _block(keras)}
    for name in ("model.h5", "model.keras"):
        _answers_alike(sources.load(tmp_path / name, custom_objects=own), model)
    options = LoadOptions(architecture=str(tmp_path / "model.json"))
    _answers_alike(sources.load(tmp_path / "weights.h5", options, custom_objects=own), model)
