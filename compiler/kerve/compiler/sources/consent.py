"""Detect what a configuration would run or read, before it is loaded.

An architecture is data, but parts of it refer to code: Lambda layers contain Python bytecode, objects may
name any module to import, raw TensorFlow operators may access files. Without consent none of it is loaded.
Names with a module are accepted only if they are on the allow lists of this module.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Collection, Iterator
from typing import Any

from google.protobuf import json_format, message
from tensorflow.core.framework import node_def_pb2

from kerve.compiler.errors import LoadError

__all__ = ["check", "check_operators", "has_side_effects"]

#: The modules of Keras, in any version, whose classes models are made of ...
_MODULE_OF_CLASSES = re.compile(
    r"((tf_)?keras|tensorflow\.(python\.)?keras|keras_(hub|cv|nlp))(\.src|\.api)?(\._v[12])?"
    r"\.(activations|constraints|dtype_policies|engine|experimental|feature_column|initializers|layers|legacy(_tf_layers)?"
    r"|losses|metrics|mixed_precision|models|ops|optimizer_v2|optimizers|premade(_models)?|quantizers|regularizers"
    r"|samplers)(\.\w+)*"
)
#: ... and the top-level classes.
_AT_THE_TOP = re.compile(r"(tf_)?keras|tensorflow\.(python\.)?keras")
_TOP_CLASSES = frozenset(
    {
        "DTypePolicy",
        "FloatDTypePolicy",
        "Functional",
        "Initializer",
        "Input",
        "InputSpec",
        "KerasTensor",
        "Layer",
    }
    | {"Loss", "Metric", "Model", "Optimizer", "Quantizer", "Regularizer", "Sequential"}
)

#: Symbols of TensorFlow that only operate on tensors ...
_TENSOR_SYMBOL = re.compile(
    r"(compat\.v[12]\.)?((audio|bitwise|dtypes|image|linalg|math|nn|quantization|ragged|random|sets|signal|sparse"
    r"|strings|experimental\.numpy|keras\.activations|keras\.backend|__operators__)\.)?\w+"
)
#: ... unless their name suggests a side effect.
_EFFECT = re.compile(
    r"assert|checkpoint|debug|dump|file|import|load|numpy_function|print|py_func|reader|restore|save|summary|write"
    r"|\b(clear|disable|enable|reset|set)_",
    re.IGNORECASE,
)

#: Modules whose functions have no side effects.
_MODULE_OF_FUNCTIONS = re.compile(
    r"((tf_)?keras|tensorflow(\.python)?\.keras)(\.src|\.api)?(\._v[12])?"
    r"\.((activations|constraints|initializers|losses|metrics|nn|ops|regularizers)(\.\w+)*"
    r"|backend(\.tensorflow\.(core|image|linalg|math|nn|numpy|random))?)"
    r"|tensorflow\.python\.ops\.(gen_)?(array|bitwise|clip|image|linalg|math|nn|random|sort|sparse|special_math"
    r"|string)_(grad|impl|ops|ops_impl|ops_stack)"
    r"|tensorflow\.python\.ops\.(linalg|numpy_ops|ragged|signal)\.\w+"
)

#: Keras serializes its own functions with the module "builtins" ("relu"), but never Python's ("exec"). These
#: two names refer to TensorFlow's functions (see `functions`).
_PYTHONS_OWN = frozenset(dir(builtins)) - {"abs", "round"}

#: Operators that read or write files, use the network, or call Python ...
_TOUCHES = re.compile(
    r"Dataset|Reader|File|Save|Restore|Checkpoint|PyFunc|PrintV2|Debug|DumpTensor|Summary(Db)?Writer|^Write"
    r"|^(Rpc|Remote|_?Send|_?Recv)|ImportEvent|Remap|^ImmutableConst$"
)
#: ... and those that only match by name: a vocabulary file is an asset of its SavedModel.
_TOUCHES_NOT = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})

#: Layers that Keras defines in other modules.
_MODULE_OF_SOME = {
    "FlaxLayer": "keras.src.utils.jax_layer",
    "JaxLayer": "keras.src.utils.jax_layer",
    "TFSMLayer": "keras.src.export.tfsm_layer",
    "TorchModuleWrapper": "keras.src.utils.torch_utils",
}

#: Layers that contain code of another framework: pickled modules, lambdas.
_OTHER_FRAMEWORKS = {"FlaxLayer": "JAX", "JaxLayer": "JAX", "TorchModuleWrapper": "PyTorch"}

#: Keys of a layer's configuration that name a file to read if their value is a string.
_FILES = ("asset", "merges", "proto", "vocabulary")


def check(origin: str, config: Any, own: Collection[str], trust: bool) -> list[str]:
    """Return sentences on what will run; without `trust`, raises `LoadError` if there is anything.

    `own` are the names of the user's classes and functions. Other names from outside Keras are not imported,
    with or without `trust`: they raise `LoadError` too.
    """
    nodes = list(_nodes(config))
    strange = sorted({name for node in nodes if (name := _strange(node, own))})
    if strange:
        raise LoadError(
            f"{origin} uses {', '.join(strange)}, which is not part of Keras; "
            "name the module that defines it with --import MODULE (custom_objects= in Python)"
        )
    of_lambdas = {
        id(value) for node in nodes if node["class_name"] == "Lambda" for value in _fields(node).values()
    }
    runs = dict.fromkeys(what for node in nodes if id(node) not in of_lambdas for what in _runs(node))
    return _consented(origin, list(runs), trust)


def check_operators(origin: str, operators: Collection[str], trust: bool) -> list[str]:
    """Like `check`, for a graph: `operators` are those in it for which `has_side_effects` is true."""
    return _consented(origin, [f"a graph runs TensorFlow's {operator}" for operator in operators], trust)


def has_side_effects(operator: str) -> bool:
    """Return whether an operator of TensorFlow has side effects or reads files."""
    return operator not in _TOUCHES_NOT and bool(_TOUCHES.search(operator))


def _consented(origin: str, runs: list[str], trust: bool) -> list[str]:
    if runs and not trust:
        raise LoadError(
            f"{origin} would run code or use files: {'; '.join(runs)}. "
            "If you know where it comes from, allow it with --trust (trust=True in Python)"
        )
    return [f"trusted: {what}" for what in runs]


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every serialized object in a configuration."""
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("class_name"), str):
                yield node
            waiting.extend(reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend(reversed(node))


def _strange(node: dict[str, Any], own: Collection[str]) -> str:
    """Return the name of an object that is not on the allow lists, or ""."""
    module = node.get("module")
    if not isinstance(module, str):
        return ""
    names = [str(node.get(key)).rpartition(">")[2] for key in ("registered_name", "config", "class_name")]
    if set(names) & set(own):
        return ""
    name = str(node["config"] if node["class_name"] == "function" else node["class_name"])
    if not (_computes(module, name) if node["class_name"] == "function" else _is_part(module, name)):
        return f"{name} (of {module})"
    return ""


def _computes(module: str, name: str) -> bool:
    """Return whether a name refers to a function without side effects."""
    if module == "builtins":
        return name not in _PYTHONS_OWN
    return name.isidentifier() and bool(_MODULE_OF_FUNCTIONS.fullmatch(module)) and not _EFFECT.search(name)


def _is_part(module: str, name: str) -> bool:
    """Return whether a name refers to an allowed class; its configuration may still name code to run."""
    if module == "builtins":
        return name not in _PYTHONS_OWN
    if _AT_THE_TOP.fullmatch(module):
        return name in _TOP_CLASSES
    is_class = name.isidentifier() and name[0].isupper()
    return is_class and bool(_MODULE_OF_CLASSES.fullmatch(module) or _MODULE_OF_SOME.get(name) == module)


def _runs(node: dict[str, Any]) -> Iterator[str]:
    name = node["class_name"]
    fields = _fields(node)
    layer = f"layer '{fields.get('name', name)}'"
    if name == "__lambda__":
        yield "a function is saved as Python bytecode"
    if name == "Lambda" and _has_bytecode(fields):
        yield f"{layer} is a Lambda with Python bytecode"
    if name in ("TFOpLambda", "SlicingOpLambda") and not _is_tensor_symbol(fields.get("function")):
        yield f"{layer} calls tf.{fields.get('function')}"
    if name == "TensorFlowOpLayer" and has_side_effects(operator := _raw_operator(fields)):
        yield f"{layer} runs TensorFlow's {operator}"
    if name == "TFSMLayer":  # Keras 3.12 loads it even in safe mode
        yield f"{layer} runs the SavedModel {fields.get('filepath')!r}"
    if name == "ClassMethod":
        yield f"{layer} calls a method of {fields.get('cls_ref')}"
    if name in _OTHER_FRAMEWORKS:
        yield f"{layer} runs code of {_OTHER_FRAMEWORKS[name]}"
    for file in (fields[key] for key in _FILES if isinstance(fields.get(key), str)):
        yield f"{layer} reads the file {file!r}"


def _fields(node: dict[str, Any]) -> dict[str, Any]:
    return node["config"] if isinstance(node.get("config"), dict) else {}


def _has_bytecode(fields: dict[str, Any]) -> bool:
    types = (fields.get("function_type"), fields.get("output_shape_type"), fields.get("mask_type"))
    functions = (fields.get("function"), fields.get("output_shape"), fields.get("mask"))
    return "lambda" in types or any(
        isinstance(function, dict) and function.get("class_name") == "__lambda__" for function in functions
    )


def _is_tensor_symbol(symbol: Any) -> bool:
    return isinstance(symbol, str) and bool(_TENSOR_SYMBOL.fullmatch(symbol)) and not _EFFECT.search(symbol)


def _raw_operator(fields: dict[str, Any]) -> str:
    """Return the operator of a TensorFlowOpLayer, decoded as in tf_keras."""
    definition, node = fields.get("node_def"), node_def_pb2.NodeDef()
    try:
        if isinstance(definition, dict):
            json_format.ParseDict(definition, node)
        else:
            node.ParseFromString(str(definition).encode())
    except (json_format.ParseError, message.DecodeError) as error:
        raise LoadError(f"a TensorFlowOpLayer holds no operator ({error}); the file is damaged") from error
    return str(node.op)
