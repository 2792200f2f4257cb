"""No code of a file is run, and no file on its behalf read, unless the user says so."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from kerve.compiler import sources
from kerve.compiler.errors import LoadError
from kerve.compiler.sources import LoadOptions, consent


def _layer(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"layers": [{"class_name": class_name, "config": config}]}}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param(
            _layer("Lambda", name="evil", function=["4wEA", None, None], function_type="lambda"),
            "layer 'evil' is a Lambda with Python bytecode",
            id="a Lambda of Keras 2",
        ),
        pytest.param(
            _layer("Lambda", name="evil", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
            "layer 'evil' is a Lambda with Python bytecode",
            id="a Lambda of Keras 3",
        ),
        pytest.param(
            _layer("Dense", name="d", activation={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
            "a function is saved as Python bytecode",
            id="an activation that is a lambda",
        ),
        pytest.param(
            _layer("TFOpLambda", name="w", function="io.write_file"),
            r"layer 'w' calls tf\.io\.write_file",
            id="a write",
        ),
        pytest.param(
            _layer("TFOpLambda", name="l", function="load_op_library"),
            "calls tf.load_op_library",
            id="a library",
        ),
        pytest.param(
            _layer("TFOpLambda", name="k", function="keras.utils.get_file"),
            "calls tf.keras.utils",
            id="a download",
        ),
        pytest.param(
            _layer("TensorFlowOpLayer", name="r", node_def={"name": "r", "op": "ReadFile"}),
            "layer 'r' runs TensorFlow's ReadFile",
            id="a raw operator",
        ),
        pytest.param(
            _layer("TensorFlowOpLayer", name="r", node_def="\n\x01r\x12\x06PyFunc"),
            "layer 'r' runs TensorFlow's PyFunc",
            id="a raw operator as TensorFlow 1 writes it",
        ),
        pytest.param(
            _layer("TFSMLayer", name="t", filepath="/tmp/m", call_endpoint="serve"),
            "layer 't' runs the SavedModel '/tmp/m'",
            id="a layer that is a SavedModel",
        ),
        pytest.param(
            _layer("StringLookup", name="s", vocabulary="/etc/passwd"),
            "reads the file '/etc/passwd'",
            id="a vocabulary",
        ),
        pytest.param(
            _layer("TorchModuleWrapper", name="p", module="gASVIAAA"),
            "layer 'p' runs code of PyTorch",
            id="a pickled module",
        ),
        pytest.param(_layer("JaxLayer", name="j"), "layer 'j' runs code of JAX", id="a function of JAX"),
    ],
)
def test_what_would_run_needs_trust_and_is_named(config: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError, match=says):
        consent.check("model.h5", config, (), trust=False)
    (told,) = consent.check("model.h5", config, (), trust=True)
    assert told.startswith("trusted: ")


@pytest.mark.parametrize(
    "symbol", ["math.add", "concat", "nn.relu", "__operators__.getitem", "compat.v1.squeeze", "image.resize"]
)
def test_functions_of_tensors_need_no_trust(symbol: str) -> None:
    assert consent.check("model.h5", _layer("TFOpLambda", name="x", function=symbol), (), trust=False) == []


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "exec"),
        ("keras.utils", "get_file"),
        ("tf_keras.models", "load_model"),
        ("keras", "utils.get_file"),
        ("tensorflow.python.ops.io_ops", "write_file"),
        ("tensorflow", "load_op_library"),
    ],
)
@pytest.mark.parametrize("is_function", [True, False])
def test_what_does_not_compute_is_never_imported_because_a_file_says_so(
    trust: bool, module: str, name: str, is_function: bool
) -> None:
    what = {"class_name": "function", "config": name} if is_function else {"class_name": name, "config": {}}
    node = {"module": module, **what, "registered_name": None}
    with pytest.raises(LoadError, match=rf"uses {name} \(of {module}\).*--import MODULE"):
        consent.check("model.keras", _layer("Dense", activation=node), (), trust)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras", "Variable"),
        ("keras.callbacks", "CSVLogger"),
        ("keras.callbacks", "ModelCheckpoint"),
        ("keras.export", "ExportArchive"),
        ("keras.src.saving.serialization_lib", "SafeModeScope"),
        ("keras.src.utils.file_utils", "File"),
        ("keras.utils", "CustomObjectScope"),
        ("keras_hub.src.utils.preset_utils", "KerasPresetLoader"),
        ("tensorflow", "Graph"),
        ("tensorflow.compat.v1", "Session"),
        ("tensorflow.data", "TextLineDataset"),
        ("tensorflow.io", "TFRecordWriter"),
        ("tensorflow.python.lib.io.file_io", "FileIO"),
        ("tensorflow.python.ops.script_ops", "EagerFunc"),
        ("tensorflow.train", "Checkpoint"),
        ("tf_keras.src.utils.data_utils", "OrderedEnqueuer"),
    ],
)
def test_a_class_that_models_are_not_made_of_is_refused_whatever_package_it_is_from(
    module: str, name: str
) -> None:
    node: dict[str, Any] = {"module": module, "class_name": name, "config": {}, "registered_name": None}
    with pytest.raises(LoadError, match=rf"uses {name} \(of {module}\)"):
        consent.check("model.keras", node, (), trust=True)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.src.backend.common.global_state", "clear_session"),
        ("keras.backend", "set_floatx"),
        ("tensorflow.python.ops.gen_dataset_ops", "text_line_dataset"),
        ("tensorflow.python.ops.gen_io_ops", "ReadFile"),
        ("tensorflow.python.ops.gen_rpc_ops", "rpc"),
        ("tensorflow.python.ops.functional_ops", "map_fn"),
        ("keras.applications", "ResNet50"),
    ],
)
def test_a_function_that_is_not_known_to_compute_is_refused(module: str, name: str) -> None:
    node = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    with pytest.raises(LoadError, match=rf"uses {name} \(of {module}\)"):
        consent.check("model.keras", _layer("Dense", activation=node), (), trust=True)


_PARTS = (
    "constraints",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
)


@pytest.mark.parametrize("package", [keras, tf_keras])
def test_whatever_models_are_made_of_may_be_named(package: Any) -> None:
    classes = {
        (module, item.__name__)
        for part in _PARTS
        for item in vars(getattr(package, part)).values()
        if hasattr(item, "from_config")
        for module in (f"{package.__name__}.{part}", item.__module__)
        if item.__name__ not in ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")
    }
    nodes = [{"module": module, "class_name": name, "config": {}} for module, name in classes]
    assert len(nodes) > 200
    assert consent.check("model.keras", nodes, (), trust=False) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "relu"), ("keras.ops", "sin"), ("tensorflow.python.ops.nn_ops", "leaky_relu")],
)
def test_functions_that_compute_may_be_named(module: str, name: str) -> None:
    node = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    assert consent.check("model.keras", _layer("Dense", activation=node), (), trust=False) == []


def test_what_the_user_names_may_come_from_anywhere() -> None:
    node = {
        "module": "research.layers",
        "class_name": "Gate",
        "config": {},
        "registered_name": "research>Gate",
    }
    assert consent.check("model.keras", node, ["Gate"], trust=False) == []


def test_the_lambda_of_an_old_h5_file_is_not_loaded(written_by: Callable[[str], Path]) -> None:
    with pytest.raises(LoadError, match=r"layer 'double' is a Lambda.*--trust"):
        sources.load(written_by("tf2.4") / "lambda.h5")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("writer", [keras, tf_keras])
def test_a_lambda_that_is_trusted_runs_and_is_told(
    writer: Any, suffix: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    model = writer.Sequential(
        [writer.layers.Input((4,), name="x"), writer.layers.Lambda(lambda t: t * 2.0 + 1.0, name="double")]
    )
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    with pytest.raises(LoadError, match="layer 'double' is a Lambda"):
        sources.load(path)
    source: Any = sources.load(path, LoadOptions(trust=True))
    assert source.warnings == ["trusted: layer 'double' is a Lambda with Python bytecode"]
    equal_to_original(source, {"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("writer", [keras, tf_keras])
def test_a_lambda_that_is_trusted_finds_libraries_and_what_the_author_gave(
    writer: Any, suffix: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    code = "lambda t: tf.exp(K.square(t)) + np.pi * scale(t)"
    names = {"tf": tf, "np": np, "K": (tf.keras if writer is keras else tf_keras).backend, "scale": _scale}
    model = writer.Sequential([writer.Input((4,), name="x"), writer.layers.Lambda(eval(code, names))])
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    source: Any = sources.load(path, LoadOptions(trust=True), custom_objects={"scale": _scale})
    equal_to_original(source, {"x": np.ones((2, 4), np.float32)})


def _scale(tensor: Any) -> Any:
    return tensor * 3.0


def test_a_saved_model_is_a_graph_where_its_code_is_not_trusted_or_does_not_run(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    factor = tf.constant(2.0)  # a name that the Lambda does not find again
    double = tf_keras.layers.Lambda(eval("lambda t: t * factor", {"factor": factor}), name="double")
    model = tf_keras.Sequential([tf_keras.Input((4,), name="x"), double])
    model.save(tmp_path / "model.h5")
    with pytest.raises(LoadError, match="its Lambda uses a name of the module it was written in"):
        sources.load(tmp_path / "model.h5", LoadOptions(trust=True))
    model.save(tmp_path / "saved", save_format="tf")
    for trust, says in (
        (False, "compiled as a graph, without its layers"),
        (True, "trusted: layer 'double'"),
    ):
        source = sources.load(tmp_path / "saved", LoadOptions(trust=trust))
        assert says in source.warnings[0]
        equal_to_original(source, {"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize("writer", [keras, tf_keras])
def test_a_lambda_in_an_architecture_runs_where_it_is_trusted(
    writer: Any, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    model = writer.Sequential(
        [writer.layers.Input((4,), name="x"), writer.layers.Dense(3), writer.layers.Lambda(lambda t: t * 2.0)]
    )
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "model.weights.h5")
    architecture = str(tmp_path / "model.json")
    with pytest.raises(LoadError, match=r"is a Lambda.*--trust"):
        sources.load(tmp_path / "model.weights.h5", LoadOptions(architecture=architecture))
    source = sources.load(tmp_path / "model.weights.h5", LoadOptions(architecture=architecture, trust=True))
    equal_to_original(source, {"x": np.ones((2, 4), np.float32)})


def test_a_config_that_imports_a_module_is_refused_in_a_zip_file_of_keras_2(
    tmp_path: Path, written_by: Callable[[str], Path]
) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(written_by("tf2.15") / "mlp.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1] |= {"module": "subprocess", "class_name": "Popen"}
                content = json.dumps(config).encode()
            new.writestr(name, content)
    with pytest.raises(LoadError, match=r"uses Popen \(of subprocess\)"):
        sources.load(path, LoadOptions(trust=True))


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/object:os.Popen {}"],
)
def test_a_yaml_tag_is_refused_with_trust_or_without(
    tag: str, tmp_path: Path, written_by: Callable[[str], Path]
) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(f"class_name: Sequential\nconfig: {tag}\n")
    with pytest.raises(LoadError, match="YAML tag that stands for code"):
        sources.load(written_by("tf2.4") / "mlp_weights.h5", LoadOptions(architecture=str(path), trust=True))


def test_a_yaml_file_that_unfolds_is_refused(tmp_path: Path, written_by: Callable[[str], Path]) -> None:
    path = tmp_path / "model.yaml"
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else 'x'}]" for i in range(12)]
    path.write_text("class_name: Sequential\nconfig: {}\n" + "\n".join(lines))
    with pytest.raises(LoadError, match="as a YAML bomb does"):
        sources.load(written_by("tf2.4") / "mlp_weights.h5", LoadOptions(architecture=str(path)))


class _Writes(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])  # type: ignore[untyped-decorator]  # the same
    def serve(self, x: Any) -> Any:
        tf.io.write_file("/tmp/kerve-was-here", x[0])
        return {"y": x}


def test_a_saved_model_that_writes_files_is_not_loaded(tmp_path: Path) -> None:
    module = _Writes()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(LoadError, match="a graph runs TensorFlow's WriteFile"):
        sources.load(tmp_path)


def test_a_function_that_is_named_like_tensorflows_own_is_looked_at_all_the_same(tmp_path: Path) -> None:
    module = _Writes()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    file, disguise = tmp_path / "saved_model.pb", "__inference__traced_save_999"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    functions = proto.meta_graphs[0].graph_def.library.function
    (writer,) = (f for f in functions if any(node.op == "WriteFile" for node in f.node_def))
    calls = [node.attr["f"].func for f in functions for node in f.node_def if "f" in node.attr]
    for call in calls:
        call.name = disguise if call.name == writer.signature.name else call.name
    del proto.meta_graphs[0].object_graph_def.concrete_functions[writer.signature.name]
    writer.signature.name = disguise
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(LoadError, match="a graph runs TensorFlow's WriteFile"):
        sources.load(tmp_path)


def _adapted(folder: Path) -> Path:
    """Write a model with a layer that learned from data, by a function of Python."""
    layer = tf_keras.layers.Discretization(num_bins=3)
    layer.adapt(np.arange(12, dtype=np.float32)[:, None])
    inputs = tf_keras.Input((2,), name="x")
    tf_keras.Model(inputs, layer(inputs)).save(folder, save_format="tf")
    return folder


def test_a_function_that_adapts_a_layer_is_not_called(tmp_path: Path) -> None:
    source: Any = sources.load(_adapted(tmp_path))
    np.testing.assert_array_equal(
        source.original(np.array([[1, 11]], np.float32)), source.model(np.array([[1, 11]], np.float32))
    )


def test_a_function_that_is_kept_like_one_that_adapts_is_looked_at_where_it_is_called(tmp_path: Path) -> None:
    file = _adapted(tmp_path) / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    nodes = proto.meta_graphs[0].object_graph_def.nodes
    (adapting,) = (
        child for node in nodes for child in node.children if child.local_name == "_adapt_function"
    )
    nodes[0].children.add(local_name="call", node_id=adapting.node_id)
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(LoadError, match="a graph runs TensorFlow's PyFunc"):
        sources.load(tmp_path)


def test_an_asset_outside_a_saved_model_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path))
    file = tmp_path / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    proto.meta_graphs[0].asset_file_def.add(filename="../../../etc/passwd")
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(LoadError, match=r"names the asset '(\.\./)+etc/passwd', which is not in it"):
        sources.load(tmp_path)
