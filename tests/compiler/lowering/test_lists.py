"""Lists of tensors in TensorFlow's code: what `tf.TensorArray`, `tf.map_fn` and `tf.scan` fill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_RANDOM = np.random.default_rng(0)

#: Of several lengths, the first axis no batch.
_CALLS = [_RANDOM.normal(size=shape).astype(np.float32) for shape in ((4, 3, 2), (2, 5, 2), (5, 4, 2))]


class _Traced(keras.Layer):
    """A layer whose code is TensorFlow's alone."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = tf.function(function)

    def call(self, x: Any) -> Any:
        if not isinstance(x, tf.Tensor):
            raise TypeError("give me a tensor of TensorFlow")
        return self.function(x)


def _model(function: Callable[[Any], Any]) -> keras.Model:
    inputs = keras.Input((None, 2))
    return keras.Model(inputs, _Traced(function)(inputs))


def _length(x: Any) -> Any:
    return tf.shape(x)[1]


def _array(x: Any, *, more: int = 0, **options: Any) -> Any:
    """Return a list as long as the second axis, and a bit."""
    return tf.TensorArray(tf.float32, _length(x) + more, **options)


def _loop(x: Any, step: Callable[[Any, Any], Any], array: Any, start: Any = 0) -> Any:
    """Let `step(index, list)` return the next list, for each index of the second axis."""
    count = _length(x)
    _, array = tf.while_loop(lambda i, _: i < count, lambda i, a: (i + 1, step(i, a)), (start, array))
    return array


def _decay(before: Any, x: Any) -> Any:
    return before * 0.5 + x


def _reads_before(x: Any) -> Any:
    array = _array(x, more=1, clear_after_read=False).write(0, x[:, 0])
    return _loop(x, lambda i, a: a.write(i + 1, _decay(a.read(i), x[:, i])), array).stack()


def _grows_and_reads(x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 1, dynamic_size=True, clear_after_read=False).write(0, x[:, 0])
    return _loop(x, lambda i, a: a.write(a.size(), _decay(a.read(i), x[:, i])), array).stack()


def _adds_up_two(x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2, clear_after_read=False).unstack(tf.zeros([2]))
    return _loop(x, lambda i, a: a.write(i % 2, a.read(i % 2) + tf.reduce_sum(x[:, i])), array).stack()


def _writes_if(otherwise: Callable[[Any, Any, Any], Any]) -> Callable[[Any], Any]:
    def step(x: Any, i: Any, array: Any) -> Any:
        total = tf.reduce_sum(x[:, i], 0)
        return tf.cond(total[0] > 0, lambda: array.write(i, total), lambda: otherwise(array, i, total))

    return lambda x: _loop(x, lambda i, a: step(x, i, a), _array(x, element_shape=[2])).stack()


def _backwards(x: Any) -> Any:
    last = _length(x) - 1
    start = (last, tf.zeros_like(x[:, 0]), _array(x))
    _, _, array = tf.while_loop(
        lambda i, *_: i >= 0, lambda i, s, a: (i - 1, _decay(s, x[:, i]), a.write(i, s)), start
    )
    return array.stack()


def _from_another(x: Any) -> Any:
    rows = _array(x).unstack(tf.transpose(x, [1, 0, 2]))
    return _loop(x, lambda i, a: a.write(i, rows.read(_length(x) - 1 - i) * 2.0), _array(x)).stack()


def _until_break(x: Any) -> Any:
    array = tf.TensorArray(tf.float32, size=0, dynamic_size=True, element_shape=[None, 2])
    i = 0
    while i < _length(x):
        if i >= 2:
            break
        array = array.write(i, x[:, i])
        i += 1
    return array.stack()


def _for(x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 0, dynamic_size=True)
    i = 0
    for row in tf.transpose(x, [1, 0, 2]):
        array = array.write(i, row * 2.0)
        i += 1
    return array.stack()


def _in_each_other(x: Any) -> Any:
    rows = tf.TensorArray(tf.float32, tf.shape(x)[0])
    for i in tf.range(tf.shape(x)[0]):
        columns = _array(x)
        for j in tf.range(_length(x)):
            columns = columns.write(j, x[i, j] * tf.cast(j, tf.float32))
        rows = rows.write(i, columns.stack())
    return rows.stack()


def _through_both(x: Any) -> Any:
    rows, columns = tf.shape(x)[0], _length(x)
    array = tf.TensorArray(tf.float32, rows * columns)
    for i in tf.range(rows):
        for j in tf.range(columns):
            array = array.write(i * columns + j, x[i, j])
    return array.stack()


def _two_lists(x: Any) -> Any:
    def step(i: Any, rows: Any, numbers: Any) -> Any:
        return i + 1, rows.write(i, x[:, i]), numbers.write(i, i * 2)

    start = (0, _array(x), tf.TensorArray(tf.int32, _length(x)))
    _, rows, numbers = tf.while_loop(lambda i, *_: i < _length(x), step, start)
    return rows.stack(), numbers.stack()


def _sized(x: Any) -> Any:
    array = _loop(x, lambda i, a: a.write(i, x[:, i]), tf.TensorArray(tf.float32, 0, dynamic_size=True))
    return array.size()[None], array.read(1), array.gather([2, 0]), array.concat()


@pytest.mark.parametrize("function", [
    pytest.param(lambda x: tf.map_fn(lambda r: tf.reduce_sum(r, 0), x), id="map"),
    pytest.param(lambda x: tf.map_fn(lambda r: (r * 2, tf.argmax(r, -1), tf.reduce_any(r > 0)), x, fn_output_signature=(tf.float32, tf.int64, tf.bool)), id="map to several types"),
    pytest.param(lambda x: tf.map_fn(lambda p: p[0] - p[1][::-1], (x, x * 2.0), fn_output_signature=tf.float32), id="map of two"),
    pytest.param(lambda x: tf.map_fn(lambda r: tf.map_fn(lambda q: q * tf.reduce_sum(q), r), x), id="map in a map"),
    pytest.param(lambda x: tf.map_fn(lambda r: tf.where(r[0] > 0, "more", "less"), x, fn_output_signature=tf.string), id="map to texts"),
    pytest.param(lambda x: tf.scan(_decay, x), id="scan"),
    pytest.param(lambda x: tf.scan(_decay, x, reverse=True), id="scan backwards"),
    pytest.param(lambda x: tf.scan(_decay, x, initializer=tf.ones_like(x[0])), id="scan from a state"),
    pytest.param(lambda x: tf.scan(_decay, x, initializer=tf.ones_like(x[0]), reverse=True), id="scan backwards from a state"),
    pytest.param(lambda x: tf.scan(lambda s, e: (s[0] + e, s[1] * s[0]), x, initializer=(x[0], x[1])), id="scan of two states"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(i, x[:, i]), _array(x)).stack(), id="in order"),
    pytest.param(_two_lists, id="two lists"),
    pytest.param(_backwards, id="backwards"),
    pytest.param(_from_another, id="from another list"),
    pytest.param(_sized, id="what a list is asked"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(_length(x) - 1 - i, x[:, i]), _array(x)).stack(), id="counting down"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(i * 2 % _length(x), x[0, i]), _array(x)).stack() * tf.cast(_length(x) % 2, tf.float32), id="any order"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(i, x[0, i]), _array(x, more=3)).stack(), id="a longer list"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(i, x[:, i]), _array(x, more=1).write(_length(x), x[:, 0]), 1).stack(), id="between others"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(i, x[0, i]), _array(x, element_shape=[2]), 99).stack(), id="no round"),
    pytest.param(lambda x: tf.while_loop(lambda i, _: i < _length(x), lambda i, a: (i + 1, a.write(i, x[0, i])), (0, _array(x)), maximum_iterations=2)[1].stack(), id="some rounds"),
    pytest.param(_reads_before, id="reads what it wrote"),
    pytest.param(_grows_and_reads, id="reads and grows"),
    pytest.param(_adds_up_two, id="writes again"),
    pytest.param(_writes_if(lambda array, *_: array), id="writes or not"),
    pytest.param(_writes_if(lambda array, i, total: array.write(i, -total)), id="writes in both branches"),
    pytest.param(_until_break, id="until a break"),
    pytest.param(_for, id="for"),
    pytest.param(_in_each_other, id="lists in lists"),
    pytest.param(_through_both, id="one list in two loops"),
    pytest.param(lambda x: tf.TensorArray(tf.float32, 2).write(1, x[0]).write(0, x[1]).stack(), id="without a loop"),
    pytest.param(lambda x: tf.TensorArray(tf.float32, 3).scatter([2, 0, 1], tf.constant([[1.0], [2.0], [3.0]]) * x[0, 0]).stack(), id="scattered"),
])  # fmt: skip  # one table, one case per line
def test_lists_hold_what_loops_wrote(equal_to_keras: Check, function: Callable[[Any], Any]) -> None:
    equal_to_keras(_model(function), *_CALLS, batched=False, traced=True)


@pytest.mark.parametrize("function", [
    pytest.param(lambda x: tf.map_fn(lambda r: tf.reduce_sum(r, 0), x), id="map"),
    pytest.param(lambda x: tf.scan(_decay, x, initializer=tf.ones_like(x[0])), id="scan"),
    pytest.param(lambda x: _loop(x, lambda i, a: a.write(i, x[:, i]), _array(x)).stack(), id="loop"),
])  # fmt: skip
def test_a_list_written_in_order_is_what_the_loop_gives(
    equal_to_keras: Check, operators: Count, function: Callable[[Any], Any]
) -> None:
    model = equal_to_keras(_model(function), _CALLS[0], batched=False)
    assert not operators(model)["ScatterND"]
    (loop,) = (node for node in model.graph if node.op_type == "Loop")
    readers = [user.op_type for output in loop.outputs for user, _ in output.uses()]
    assert "Concat" not in readers


@pytest.mark.parametrize(("function", "message"), [
    pytest.param(lambda x: tf.TensorArray(tf.float32, 2, infer_shape=False).split(x[0], [1, tf.shape(x)[1] - 1]).read(1), "TensorListSplit", id="of several shapes"),
    pytest.param(lambda x: tf.ensure_shape(_loop(x, lambda _, a: a, _array(x)).stack(), [None, None]), "an element of a list is read that was never written", id="never written"),
])  # fmt: skip
def test_lists_without_a_form_are_refused(function: Callable[[Any], Any], message: str) -> None:
    inputs = keras.Input((None, 2))
    layer = _Traced(function)
    layer.compute_output_spec = lambda _: keras.KerasTensor((None, 2))
    with pytest.raises(ConversionError, match=message):
        lower(keras.Model(inputs, layer(inputs)), opset=21)
