"""Crossed features in SavedModels, and others of TensorFlow's sparse tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerve.compiler import ConversionError, sources
from kerve.compiler.sources.options import LoadOptions

#: Rows in which some, all and none of the values are there.
_ROWS = {
    "words": np.array([["x", ""], ["", ""], ["a text of more than thirty-two bytes, or so", "é"]], object),
    "count": np.array([[3], [-1], [2**40]], np.int64),
    "codes": np.array([[0, 5, 7], [1, 0, 0], [0, 0, 0]], np.int64),
}


class Crosses(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable([0.5, -2.0, 3.0])

    def dense(self, words: Any, count: Any, codes: Any) -> dict[str, Any]:
        crossed = tf.sparse.cross_hashed([words, count, codes], 11)
        return {"y": tf.sparse.to_dense(crossed), "indices": crossed.indices}

    def sparse(self, words: Any, count: Any, codes: Any) -> dict[str, Any]:
        few, some = tf.sparse.from_dense(codes), tf.sparse.from_dense(words)
        crossed = tf.sparse.cross_hashed([some, count, few], 1_000_003, hash_key=12)
        free = tf.sparse.cross_hashed([few, words])
        return {"y": tf.sparse.to_dense(crossed, -1), "free": tf.sparse.to_dense(free, -1)}

    def texts(self, words: Any, count: Any, codes: Any) -> dict[str, Any]:
        """As TensorFlow 1 crosses."""
        places, texts, shape = tf.raw_ops.SparseCross(
            indices=[], values=[], shapes=[], dense_inputs=[words, count, codes], hashed_output=False,
            num_buckets=0, hash_key=0, out_type=tf.string, internal_type=tf.string,
        )  # fmt: skip
        return {"y": tf.sparse.to_dense(tf.SparseTensor(places, texts, shape), "none")}

    def product(self, words: Any, count: Any, codes: Any) -> dict[str, Any]:
        matrix = tf.SparseTensor([[0, 1], [1, 0], [1, 2]], self.weights, (2, 3))
        numbers = tf.cast(codes, tf.float32)
        product = tf.sparse.sparse_dense_matmul(matrix, numbers, adjoint_b=True)
        return {
            "y": tf.transpose(product),
            "z": tf.sparse.sparse_dense_matmul(matrix, product, adjoint_a=True),
        }


@pytest.fixture(scope="module")
def crosses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, module = tmp_path_factory.mktemp("crosses"), Crosses()
    specs = [tf.TensorSpec((None, x.shape[1]), tf.as_dtype(x.dtype), name) for name, x in _ROWS.items()]
    signatures = {
        name: tf.function(getattr(module, name)).get_concrete_function(*specs)
        for name in ("dense", "sparse", "texts", "product")
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 2)])
@pytest.mark.parametrize("signature", ["dense", "sparse", "product"])
def test_sparse_tensors_have_the_values_of_tensorflow(
    signature: str, rows: slice, crosses: Path, equal_to_original: Callable[..., Any]
) -> None:
    source = sources.load(crosses, LoadOptions(signature=signature))
    equal_to_original(source, {name: x[rows] for name, x in _ROWS.items()})


def test_crosses_that_are_texts_are_refused(crosses: Path) -> None:
    with pytest.raises(ConversionError, match="no form for crosses that are texts"):
        sources.load(crosses, LoadOptions(signature="texts")).lower(21)


def test_crosses_need_operators_on_bits(crosses: Path) -> None:
    with pytest.raises(ConversionError, match="opset 18"):
        sources.load(crosses, LoadOptions(signature="dense")).lower(17)
