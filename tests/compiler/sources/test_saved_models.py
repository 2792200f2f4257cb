"""SavedModels that TensorFlow wrote: their tables are part of the graph, what a call changes is state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.ops import control_flow_util

from kerve.compiler import sources
from kerve.compiler.errors import ConversionError, LoadError
from kerve.compiler.sources import LoadOptions
from kerve.compiler.sources.base import KerasSource

_WORDS = tf.TensorSpec([None], tf.string, "word")
_ASKED = np.array(["a", "b", "red fox", "", "naïve"], object)


class _Tables(tf.Module):
    def __init__(self) -> None:
        super().__init__(name="tables")
        table, filled = tf.lookup.StaticHashTable, tf.lookup.KeyValueTensorInitializer
        self.weights = table(filled(["a", "red fox"], [1.5, 2.5]), -1.0)
        self.names = table(filled(tf.constant([0, 1], tf.int64), ["no", "yes"]), "?")
        self.ids = tf.lookup.StaticVocabularyTable(filled(["a", "b"], tf.constant([0, 1], tf.int64)), 3)
        self.counts = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
        self.counts.insert(["b"], tf.constant([7], tf.int64))

    def weigh(self, word: Any) -> dict[str, Any]:
        return {"weight": self.weights.lookup(word), "known": self.weights.size()}

    def identify(self, word: Any) -> dict[str, Any]:
        return {"id": self.ids.lookup(word)}

    def count(self, word: Any) -> dict[str, Any]:
        return {"count": self.counts.lookup(word), "size": tf.size(word)}

    def decide(self, word: Any) -> dict[str, Any]:
        return {"name": self.names.lookup(tf.cast(self.weights.lookup(word) > 2.0, tf.int64))}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of which each signature looks something up."""
    folder, module = tmp_path_factory.mktemp("tables"), _Tables()
    names = ("weigh", "identify", "count", "decide")
    signatures = {name: tf.function(getattr(module, name)).get_concrete_function(_WORDS) for name in names}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@pytest.mark.parametrize("rows", [None, 1, 7])
def test_a_batch_that_a_subclassed_model_remembers_is_told(rows: int | None, tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model(keras.Input((3,)) if rows is None else np.ones((rows, 3), np.float32))
    tf.saved_model.save(model, str(tmp_path / "saved"))
    told = [each for each in sources.load(tmp_path / "saved", LoadOptions()).warnings if "rows" in each]
    assert [each.partition(" rows")[0] for each in told] == (
        ["its signature takes exactly 7"] if rows == 7 else []
    )


def test_that_tensorflow_traced_a_saved_model_is_no_warning(tables: Path) -> None:
    lowered = sources.load(tables, LoadOptions(signature="weigh")).lower(21)
    assert lowered.traced == ("",)
    assert lowered.warnings == ()


@pytest.mark.parametrize("signature", ["weigh", "identify", "count", "decide"])
def test_tables_are_part_of_the_graph(
    tables: Path, signature: str, equal_to_original: Callable[..., Any]
) -> None:
    source = sources.load(tables, LoadOptions(signature=signature))
    equal_to_original(source, {"word": _ASKED})


def test_tables_of_a_session_are_part_of_the_graph(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    saved = tmp_path / "saved"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        word = tf.compat.v1.placeholder(tf.string, [None], "word")
        tables = _Tables()
        session.run(tf.compat.v1.tables_initializer())
        tf.compat.v1.saved_model.simple_save(
            session,
            str(saved),
            {"word": word},
            {**tables.identify(word), "weight": tables.weights.lookup(word), **tables.decide(word)},
            legacy_init_op=tf.compat.v1.tables_initializer(),
        )
    equal_to_original(sources.load(saved), {"word": _ASKED})


def test_a_table_may_pass_over_a_number_and_hash_others(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    lookup = tf_keras.layers.IntegerLookup(vocabulary=[10, 20, 30], mask_token=0, num_oov_indices=2)
    x = tf_keras.Input((2,), dtype="int64", name="x")
    tf_keras.Model(x, lookup(x)).export(str(tmp_path / "exported"))
    equal_to_original(sources.load(tmp_path / "exported"), {"x": np.array([[0, 10], [30, 7], [8, -4]])})


@pytest.fixture
def session_saver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return `save(function, **specs)`: a SavedModel of what a function does, as TensorFlow 1 writes it."""
    monkeypatch.setattr(control_flow_util, "ENABLE_CONTROL_FLOW_V2", False)

    def save(function: Callable[..., Any], **specs: tf.TensorSpec) -> Path:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            inputs = {key: tf.compat.v1.placeholder(s.dtype, s.shape, key) for key, s in specs.items()}
            outputs = function(**inputs)
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "saved"), inputs, outputs)
        return tmp_path / "saved"

    return save


def test_loops_of_tensorflow_1_are_loops(
    session_saver: Callable[..., Path], equal_to_original: Callable[..., Any]
) -> None:
    def function(x: Any) -> dict[str, Any]:
        w = tf.compat.v1.get_variable("w", initializer=np.eye(2, dtype=np.float32) * 1.5, use_resource=True)

        def step(index: Any, state: Any, states: Any) -> Any:
            state = tf.tanh(tf.matmul(state, w) + x[:, index])
            return index + 1, state, states.write(index, state)

        count = tf.shape(x)[1]
        start = (0, tf.zeros_like(x[:, 0]), tf.TensorArray(tf.float32, count))
        _, last, states = tf.while_loop(lambda index, *_: index < count, step, start)
        once = tf.while_loop(lambda index, *_: index < 3, lambda i, a, b: (i + 1, b, b), (0, last, last))
        sign = tf.cond(tf.reduce_sum(last) > 0, lambda: last + 1.0, lambda: last - 1.0)
        return {"last": last, "states": tf.transpose(states.stack(), [1, 0, 2]), "once": once[1], "s": sign}

    saved = session_saver(function, x=tf.TensorSpec([None, None, 2]))
    x = np.random.default_rng(1).standard_normal((3, 4, 2)).astype(np.float32)
    for asked in (x, -x, x[:, :1]):
        equal_to_original(sources.load(saved), {"x": asked})


def test_a_loop_of_tensorflow_1_ends_with_the_longest_sequence(
    session_saver: Callable[..., Path], equal_to_original: Callable[..., Any]
) -> None:
    """As in `dynamic_rnn`: what is asserted before has no part in the loop, what it did not write is zero."""

    def function(x: Any, lengths: Any) -> dict[str, Any]:
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.equal(tf.size(lengths), tf.shape(x)[0]), [lengths])]
        ):
            longest = tf.reduce_max(tf.identity(lengths))
        _, rows = tf.while_loop(
            lambda index, _: index < longest,
            lambda index, rows: (index + 1, rows.write(index, x[:, index] * 2.0)),
            (0, tf.TensorArray(tf.float32, tf.shape(x)[1], element_shape=[None, 2])),
        )
        return {"rows": rows.stack() + 1.0}

    saved = session_saver(function, x=tf.TensorSpec([None, None, 2]), lengths=tf.TensorSpec([None], tf.int32))
    x = np.random.default_rng(1).standard_normal((2, 5, 2)).astype(np.float32)
    for longest in (1, 3, 5):
        equal_to_original(sources.load(saved), {"x": x, "lengths": np.array([1, longest], np.int32)})


def test_a_scattered_tensor_of_tensorflow_1_is_no_changed_variable(
    session_saver: Callable[..., Path], equal_to_original: Callable[..., Any]
) -> None:
    saved = session_saver(lambda x: {"y": tf.scatter_nd([[3], [1]], x, [5, 2])}, x=tf.TensorSpec([2, 2]))
    equal_to_original(sources.load(saved), {"x": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)})


@pytest.mark.parametrize("change", ["scatter_nd_update", "scatter_update", "assign"])
def test_a_variable_of_tensorflow_1_that_a_signature_changes_is_named(
    session_saver: Callable[..., Path], change: str
) -> None:
    arguments: dict[str, Any] = {
        "assign": lambda x: (tf.zeros((2, 2)) + x,),
        "scatter_nd_update": lambda x: ([[1]], x[:1]),
        "scatter_update": lambda x: ([1], x[:1]),
    }

    def function(x: Any) -> dict[str, Any]:
        w = tf.compat.v1.get_variable("w", initializer=np.eye(2, dtype=np.float32), use_resource=False)
        return {"y": getattr(tf.compat.v1, change)(w, *arguments[change](x)) + 1.0}

    with pytest.raises(ConversionError, match="changes the variable 'w' when it is called"):
        sources.load(session_saver(function, x=tf.TensorSpec([2, 2])))


def test_an_operator_that_this_tensorflow_lacks_is_named(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        trees = tf.raw_ops.BoostedTreesEnsembleResourceHandleOp(shared_name="trees")
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "saved"))
        signature = tf.compat.v1.saved_model.predict_signature_def({"x": x}, {"y": x + 1.0})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=trees.op
        )
        builder.save()
    with pytest.raises(
        LoadError, match=r"Op 'BoostedTreesEnsembleResourceHandleOp'.*an older version of TensorFlow"
    ):
        sources.load(tmp_path / "saved")


def test_what_onnx_has_no_input_for_is_refused(session_saver: Callable[..., Path], tmp_path: Path) -> None:
    saved = session_saver(lambda x: {"y": tf.abs(x)}, x=tf.TensorSpec(None))
    with pytest.raises(ConversionError, match=r"the rank of the input 'x'.*--data FILE\.npz"):
        sources.load(saved)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.sparse_placeholder(tf.float32, [None, 3])
        y = tf.sparse.to_dense(x)
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "sparse"), {"x": x}, {"y": y})
    with pytest.raises(ConversionError, match="'x' as a sparse tensor, which ONNX does not have"):
        sources.load(tmp_path / "sparse")


def test_a_variable_that_was_not_saved_is_named(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        kept, lost = (
            tf.compat.v1.get_variable(name, initializer=1.0, use_resource=True) for name in ("kept", "lost")
        )
        session.run(tf.compat.v1.global_variables_initializer())
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "saved"))
        signature = tf.compat.v1.saved_model.predict_signature_def({"x": x}, {"y": x * kept + lost})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, saver=tf.compat.v1.train.Saver([kept])
        )
        builder.save()
    with pytest.raises(LoadError, match="does not hold the variable 'lost' that its graph reads"):
        sources.load(tmp_path / "saved")


def test_an_input_that_no_output_needs_stays(tmp_path: Path, equal_to_original: Callable[..., Any]) -> None:
    saved = tmp_path / "saved"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        used, unused = (tf.compat.v1.placeholder(tf.float32, [None, 2], name) for name in ("a", "b"))
        tf.compat.v1.saved_model.simple_save(session, str(saved), {"a": used, "b": unused}, {"y": used * 2.0})
    rows = np.ones([3, 2], np.float32)
    model = equal_to_original(sources.load(saved), {"a": rows, "b": rows})
    assert [value.name for value in model.graph.inputs] == ["a", "b"]


def _save(folder: Path, function: Callable[..., Any], *specs: tf.TensorSpec) -> KerasSource:
    traced = tf.function(function).get_concrete_function(*specs)
    tf.saved_model.save(tf.Module(), str(folder), signatures=traced)
    source = sources.load(folder)
    assert isinstance(source, KerasSource)
    return source


_AXIS = tf.TensorSpec([1], tf.int32, "axis")


@pytest.mark.parametrize("name", ["x", "arr_0"])
def test_a_rank_of_an_input_that_data_tells(
    session_saver: Callable[..., Path], tmp_path: Path, equal_to_original: Callable[..., Any], name: str
) -> None:
    module, data, asked = tf.Module(), tmp_path / "data.npz", np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    half_plus_three = tf.function(
        lambda x: {"y": x / 2.0 + 3.0}, input_signature=[tf.TensorSpec(None, name="x")]
    )
    tf.saved_model.save(module, str(tmp_path / "module"), signatures=half_plus_three)
    np.savez(data, **{name: asked[:2]})  # type: ignore[arg-type]  # its stub takes them for a flag
    for saved in (tmp_path / "module", session_saver(lambda x: {"y": x / 2.0 + 3.0}, x=tf.TensorSpec(None))):
        model = equal_to_original(sources.load(saved, data=data), {"x": asked})
        assert model.graph.inputs[0].shape == ir.Shape(["batch", 2])


def test_a_rank_that_data_does_not_tell_is_asked_for(
    session_saver: Callable[..., Path], tmp_path: Path
) -> None:
    saved = session_saver(lambda x, z: {"y": x + z}, x=tf.TensorSpec([2]), z=tf.TensorSpec(None))
    data = tmp_path / "some.npz"
    np.savez(data, x=np.ones(2))
    with pytest.raises(ConversionError, match=f"the input 'z'.*{data.name} holds x"):
        sources.load(saved, data=data)


@pytest.mark.parametrize("function", [
    pytest.param(lambda x, axis: {"y": tf.expand_dims(x, axis), "z": x}, id="one more"),
    pytest.param(lambda x, axis: {"y": tf.reduce_sum(x, axis)}, id="one less"),
    pytest.param(lambda x, axis: {"y": tf.linalg.diag(x, k=axis)}, id="diagonals"),
])  # fmt: skip
def test_a_rank_that_only_a_call_tells(
    tmp_path: Path, equal_to_original: Callable[..., Any], function: Callable[..., Any]
) -> None:
    source = _save(tmp_path, function, tf.TensorSpec([None, 3], tf.float32, "x"), _AXIS)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for axis in (0, 1):
        model = equal_to_original(source, {"x": x, "axis": np.array([axis], np.int32)})
    assert model.graph.outputs[0].shape is not None


@pytest.mark.parametrize(("rank", "why"), [
    (lambda x, axis: tf.expand_dims(tf.ensure_shape(x, [3, 5]), axis), "accepts none of the values tried"),
    (lambda x, axis: tf.linalg.diag_part(x, k=tf.concat([axis * 0, axis], 0)), "depends on the values"),
])  # fmt: skip
def test_a_rank_that_nothing_tells_is_refused(tmp_path: Path, rank: Callable[..., Any], why: str) -> None:
    specs = tf.TensorSpec([None, None], tf.float32, "x"), _AXIS
    with pytest.raises(ConversionError, match=f"the output 'y' has no known rank: .*{why}"):
        _save(tmp_path, lambda x, axis: {"y": rank(x, axis)}, *specs)


class _Unasked(tf.Module):
    """Signatures that take nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.labels = tf.Variable([[1.0, 2.0]]), tf.constant(["cat", "naïve"])
        self.count = tf.Variable(4)
        self.ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1]), -1)

    def tell(self) -> dict[str, Any]:
        return {"labels": self.labels, "table": self.table * 2.0, "size": tf.size(self.labels)}

    def counted(self) -> dict[str, Any]:
        return {"calls": self.count.assign_add(1)}

    def drawn(self) -> dict[str, Any]:
        return {"noise": tf.random.normal([50, 40])}

    def known(self) -> dict[str, Any]:
        return {"words": self.ids.export()[0]}


@pytest.fixture(scope="module")
def unasked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel whose signatures take nothing."""
    folder, module = tmp_path_factory.mktemp("unasked"), _Unasked()
    signatures = {
        name: tf.function(getattr(module, name)).get_concrete_function()
        for name in ("tell", "counted", "drawn", "known")
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def test_a_signature_without_inputs_is_a_graph_without_inputs(
    unasked: Path, equal_to_original: Callable[..., Any]
) -> None:
    model = equal_to_original(sources.load(unasked, LoadOptions(signature="tell")), {})
    assert [value.name for value in model.graph.inputs] == []


def test_without_inputs_state_is_state_and_noise_is_noise(unasked: Path) -> None:
    counted = sources.load(unasked, LoadOptions(signature="counted")).lower(21)
    assert [(each.input, int(each.initial)) for each in counted.state] == [("Variable", 4)]
    drawn = sources.load(unasked, LoadOptions(signature="drawn")).lower(21)
    assert any("draws random numbers" in warning for warning in drawn.warnings)
    session = ort.InferenceSession(ir.to_proto(drawn.model).SerializeToString())
    first, second = (session.run(None, {})[0] for _ in range(2))
    assert np.abs(first - second).max() > 0.1


def test_the_order_of_a_table_is_refused(unasked: Path) -> None:
    with pytest.raises(ConversionError, match="orders the keys of a table differently"):
        sources.load(unasked, LoadOptions(signature="known")).lower(21)


@pytest.mark.parametrize("begin", ["examples", "x", "both"])
def test_a_signature_may_begin_within_a_graph(
    tmp_path: Path, begin: str, equal_to_original: Callable[..., Any]
) -> None:
    """As TensorFlow Serving's own half_plus_two does: behind the parser that other signatures use."""
    saved = tmp_path / "saved"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        examples = tf.compat.v1.placeholder(tf.string, [None], "examples")
        features = {"x": tf.io.FixedLenFeature([1], tf.float32), "z": tf.io.FixedLenFeature([1], tf.float32)}
        parsed = tf.compat.v1.parse_example(examples, features)
        half = tf.compat.v1.get_variable("half", initializer=0.5)
        session.run(tf.compat.v1.global_variables_initializer())
        x, z = tf.identity(parsed["x"]), parsed["z"]
        inputs = {"examples": {"e": examples}, "x": {"x": x}, "both": {"x": x, "z": z}}[begin]
        outputs = {"y": half * x + (2.0 if begin == "x" else z), "same": x}
        tf.compat.v1.saved_model.simple_save(session, str(saved), inputs, outputs)
    names = ("x",) if begin == "x" else ("x", "z")
    rows = {name: np.array([[1.0], [2.0], [-5.0]], np.float32) for name in names}
    equal_to_original(sources.load(saved), rows)


def test_inputs_with_rows_of_their_own_are_no_batch(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    specs = [tf.TensorSpec([None, 3], tf.float32, name) for name in ("query", "documents")]

    def score(query: Any, documents: Any) -> dict[str, Any]:
        return {"y": tf.matmul(query, documents, transpose_b=True)}

    rows = {name: np.ones((count, 3), np.float32) for name, count in (("query", 1), ("documents", 4))}
    model = equal_to_original(_save(tmp_path / "apart", score, *specs), rows)
    assert [str(value.shape) for value in model.graph.inputs] == ["[documents_0,3]", "[query_0,3]"]

    together = _save(tmp_path / "batch", lambda query, documents: {"y": query + documents}, *specs)
    assert {str(value.shape) for value in together.lower(21).model.graph.inputs} == {"[batch,3]"}


def test_what_xla_compiles_is_converted(tmp_path: Path, equal_to_original: Callable[..., Any]) -> None:
    doubled = tf.function(lambda x: x * 2.0, jit_compile=True)
    source = _save(tmp_path, lambda x: {"y": doubled(x)}, tf.TensorSpec([None, 3], tf.float32, "x"))
    equal_to_original(source, {"x": np.ones((2, 3), np.float32)})


def test_several_signatures_are_listed(tables: Path) -> None:
    with pytest.raises(LoadError, match="choose one with --signature: count, decide, identify, weigh"):
        sources.load(tables)
    with pytest.raises(LoadError, match="no signature 'other'; it has: count, decide, identify, weigh"):
        sources.load(tables, LoadOptions(signature="other"))


def test_several_tags_are_listed(tables: Path) -> None:
    with pytest.raises(LoadError, match="no graph tagged 'gpu'; choose with --tag from: serve"):
        sources.load(tables, LoadOptions(tag="gpu"))


class _Changing(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.total = tf.Variable([0.5, 1.0], name="total")
        self.rows = tf.Variable(tf.zeros([3, 2]), name="rows")
        self.weights = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="weights")
        self.seen = tf.lookup.experimental.MutableHashTable(tf.int32, tf.float32, 0.0)

    def accumulate(self, x: Any) -> dict[str, Any]:
        if tf.reduce_sum(x) > 0.0:
            self.total.assign_add(tf.reduce_sum(x, 0))
        for _ in tf.range(2):
            self.total.assign(self.total * 0.5 + self.weights[0])
        self.rows.scatter_nd_update([[1]], [self.total])
        return {"y": tf.matmul(x, self.weights) + self.total, "row": tf.gather(self.rows, [1])}

    def remember(self, x: Any) -> dict[str, Any]:
        return {"y": x + self.rows, "next": self.rows.assign(self.rows + x)}

    def draw(self, x: Any) -> dict[str, Any]:
        self.seen.insert(tf.cast(x[:, 0], tf.int32), x[:, 1])
        return {"y": x}


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel whose signatures change what it holds."""
    folder, module = tmp_path_factory.mktemp("changing"), _Changing()
    names, spec = ("accumulate", "remember", "draw"), tf.TensorSpec([None, 2], tf.float32, "x")
    signatures = {name: tf.function(getattr(module, name)).get_concrete_function(spec) for name in names}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@pytest.mark.parametrize(("signature", "rows"), [("accumulate", 4), ("remember", 3)])
def test_variables_that_a_signature_changes_are_state(changing: Path, signature: str, rows: int) -> None:
    lowered = sources.load(changing, LoadOptions(signature=signature)).lower(21)
    session = ort.InferenceSession(ir.to_proto(lowered.model).SerializeToString())
    original = tf.saved_model.load(str(changing)).signatures[signature]
    state = {each.input: each.initial for each in lowered.state}
    assert set(state) == ({"total", "rows"} if signature == "accumulate" else {"rows"})
    names = [output.name for output in session.get_outputs()]
    for x in np.random.default_rng(1).normal(size=(4, rows, 2)).astype(np.float32):
        answers = dict(zip(names, session.run(None, {"x": x, **state}), strict=True))
        for name, expected in original(x=tf.constant(x)).items():
            np.testing.assert_allclose(answers[name], expected, rtol=1e-5, atol=1e-6)
        state = {each.input: answers[each.output] for each in lowered.state}


def test_the_rows_of_the_state_are_those_of_the_input(changing: Path) -> None:
    source = sources.load(changing, LoadOptions(signature="remember"))
    assert source.lower(21).model.graph.inputs[0].shape == ir.Shape([3, 2])


def test_an_export_in_training_mode_is_told(tmp_path: Path) -> None:
    inputs = keras.Input((4,), name="x")
    for training in (True, False):
        model = keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(inputs, training=training))
        folder = tmp_path / str(training)
        model.export(folder, verbose=False)
        said = " ".join(sources.load(folder, LoadOptions()).warnings)
        assert ("exported in training mode" in said and "bn/moving_mean" in said) == training


def test_a_table_that_a_signature_changes_is_refused(changing: Path) -> None:
    with pytest.raises(ConversionError, match="changes a table"):
        sources.load(changing, LoadOptions(signature="draw")).lower(21)


class _Parsing(tf.Module):
    """What feature columns make of examples."""

    def __init__(self) -> None:
        super().__init__()
        table, filled = tf.lookup.StaticHashTable, tf.lookup.KeyValueTensorInitializer
        self.ids = table(filled(["a", "b"], tf.constant([0, 1], tf.int64)), -1)
        self.vectors = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

    def serve(self, examples: Any) -> dict[str, Any]:
        features = tf.io.parse_example(
            examples,
            {
                "numbers": tf.io.VarLenFeature(tf.int64),
                "size": tf.io.FixedLenFeature([2], tf.float32),
                "weights": tf.io.VarLenFeature(tf.float32),
                "words": tf.io.VarLenFeature(tf.string),
            },
        )
        words = features["words"]
        found = tf.SparseTensor(words.indices, self.ids.lookup(words.values), words.dense_shape)
        counts = tf.reduce_sum(tf.one_hot(tf.sparse.to_dense(found, -1), 2), 1)
        mean = tf.nn.safe_embedding_lookup_sparse(self.vectors, features["numbers"], combiner="mean")
        return {
            "counts": counts,
            "mean": mean + features["size"],
            "sum": tf.reduce_sum(tf.sparse.to_dense(features["weights"]), 1),
        }


def test_features_of_any_number_of_values_are_rows_filled_up(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    module = _Parsing()
    function = tf.function(module.serve).get_concrete_function(tf.TensorSpec([None], tf.string, "examples"))
    tf.saved_model.save(module, str(tmp_path), signatures=function)
    source: Any = sources.load(tmp_path)
    assert sorted(warning.partition("'")[2][:5] for warning in source.warnings) == ["numbe", "weigh", "words"]
    nothing = float("nan")
    asked = {
        "numbers": np.array([[0, 2, 1], [-1, -1, -1], [1, -1, -1]], np.int64),
        "size": np.array([[0.5, 1.5], [2.5, 3.5], [4.5, 5.5]], np.float32),
        "weights": np.array([[1.0, 2.0], [nothing, nothing], [3.0, nothing]], np.float32),
        "words": np.array([["a", "b", "a"], ["", "", ""], ["b", "x", ""]], object),
    }
    equal_to_original(source, asked)
