"""SavedModels that prepare texts: what is exported of a TextVectorization, and TensorFlow's own strings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest
import tensorflow as tf
from keras import layers

from kerve.compiler import ConversionError, compile_model

TEXTS = [["Hello world, hello!"], ["  foo \t\n bar"], [""], ["É don't (stop) a-b"], ["world " * 9]]
WORDS = ["hello", "world", "foo", "bar", "dont", "Hello", "hello world"]

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "words": {},
    "cut": {"output_sequence_length": 4},
    "as_they_are": {"standardize": None},
    "lower": {"standardize": "lower"},
    "characters": {"split": "character", "vocabulary": list("helowrdfÉé")},
    "whole": {"split": None},
    "multi_hot": {"output_mode": "multi_hot"},
    "counts": {"output_mode": "count"},
    "pairs": {"ngrams": 2},
    "several": {"ngrams": (1, 3), "output_sequence_length": 5},
    "neighbours": {"ngrams": 2, "output_mode": "multi_hot"},
    "weighted": {"output_mode": "tf_idf", "idf_weights": [0.1 * place for place in range(1, 8)]},
}


def answers(source: Path, repository: Path) -> dict[str, Any]:
    artifact = compile_model(source, repository=repository, name="m", custom_objects={})
    session = ort.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    names, (text,) = [each.name for each in session.get_outputs()], session.get_inputs()
    return dict(zip(names, session.run(names, {text.name: np.array(TEXTS, object)}), strict=True))


def save(module: Any, path: Path) -> None:
    served = tf.function(module.serve).get_concrete_function(tf.TensorSpec((None, 1), tf.string, "text"))
    tf.saved_model.save(module, str(path), signatures=served)


def test_exported_text_vectorization_is_converted(tmp_path: Path) -> None:
    x = keras.Input((1,), dtype="string", name="text")
    outputs = {
        name: layers.TextVectorization(**({"vocabulary": WORDS} | options))(x)
        for name, options in CONFIGURATIONS.items()
    }
    model = keras.Model(x, outputs)
    model.export(tmp_path / "exported", verbose=False)
    got = answers(tmp_path / "exported", tmp_path / "models")
    for name, wanted in model(tf.constant(TEXTS)).items():
        np.testing.assert_allclose(got[name], wanted, rtol=1e-6, err_msg=name)


class Strings(tf.Module):
    def serve(self, text: Any) -> dict[str, Any]:
        words = tf.strings.split(tf.squeeze(text, 1), " ")
        return {
            "upper": tf.strings.upper(text),
            "padded": words.to_tensor("-"),
            "counts": words.row_lengths(),
            "spaced": tf.strings.regex_replace(text, "[-,a-c]", " "),
            "letters": tf.strings.regex_replace(text, "[^a-zé ]+", ""),
            "marked": tf.strings.regex_replace(text, r"\W", "#"),
            "numbered": tf.strings.regex_replace(text, r"[^\W_]", "1"),
            "others": tf.strings.regex_replace(text, "[^e]", "."),
            "stripped": tf.strings.strip(tf.strings.join([" \t", text, "\n"])),
            "joined": tf.strings.join(["[START]", tf.squeeze(text, 1), "[END]"], separator=" "),
            "bytes": tf.strings.length(text),
            "length": tf.strings.length(text, unit="UTF8_CHAR"),
            "beginning": tf.strings.substr(text, 0, 3, unit="UTF8_CHAR"),
            "end": tf.strings.substr(tf.strings.join([text, "é--"]), -3, 2, unit="UTF8_CHAR"),
            "triples": tf.strings.ngrams(words, [3, 1], separator="+").to_tensor(),
            "paired": tf.strings.reduce_join(tf.concat([text, text], 1), axis=-1, separator="+"),
        }


def test_strings_of_a_module_are_converted(tmp_path: Path) -> None:
    module = Strings()
    save(module, tmp_path / "saved")
    got = answers(tmp_path / "saved", tmp_path / "models")
    for name, wanted in module.serve(tf.constant(TEXTS)).items():
        plain = wanted.numpy()
        texts = plain.dtype == object
        np.testing.assert_array_equal(
            got[name], np.char.decode(plain.astype("S"), "utf-8") if texts else plain
        )


def test_no_texts_at_all_are_none_after_it(tmp_path: Path) -> None:
    save(Strings(), tmp_path / "saved")
    artifact = compile_model(tmp_path / "saved", repository=tmp_path / "models", name="m", custom_objects={})
    session = ort.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    (upper,) = session.run(["upper"], {"text": np.zeros((0, 1), object)})
    assert upper.shape == (0, 1)


class Refused(tf.Module):
    def serve(self, text: Any) -> Any:
        return tf.strings.regex_replace(text, "(a+)b", r"\1")


def test_a_text_that_ends_before_what_is_cut_out_of_it_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    module.serve = lambda text: {"y": tf.strings.substr(tf.strings.join([text, "0123"]), 5, 2, "UTF8_CHAR")}
    save(module, tmp_path / "saved")
    artifact = compile_model(tmp_path / "saved", repository=tmp_path / "models", name="m", custom_objects={})
    session = ort.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(["y"], {"text": np.array([["ab"]], object)})[0].tolist() == [["3"]]
    with pytest.raises(Exception, match="Gather"):  # onnxruntime raises its own classes
        session.run(["y"], {"text": np.array([[""]], object)})


def test_a_pattern_that_onnx_cannot_match_is_named(tmp_path: Path) -> None:
    save(Refused(), tmp_path / "saved")
    with pytest.raises(
        ConversionError, match=r"what matches '\(a\+\)b', only a fixed text or a set of characters"
    ):
        compile_model(tmp_path / "saved", repository=tmp_path / "models", name="m", custom_objects={})
