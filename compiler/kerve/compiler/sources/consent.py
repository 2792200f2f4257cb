"""What a configuration would run or read if it were loaded, found before it is.

An architecture is data, but parts of it name code: Lambda layers carry Python bytecode, objects may name any
module to import, raw TensorFlow operators may touch files. Without consent none of it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from kerve.compiler.errors import LoadError

__all__ = ["FILE_OPERATORS", "check", "check_operators"]

_TRUSTED_PACKAGES = frozenset(
    {"builtins", "keras", "tf_keras", "tensorflow", "keras_hub", "keras_cv", "keras_nlp"}
)

#: Symbols of TensorFlow that operate on tensors and nothing else ...
_TENSOR_SYMBOL = re.compile(
    r"(compat\.v[12]\.)?((audio|bitwise|dtypes|image|linalg|math|nn|quantization|ragged|random|sets|signal|sparse"
    r"|strings|experimental\.numpy|keras\.activations|keras\.backend|__operators__)\.)?\w+"
)
#: ... unless their name says otherwise.
_EFFECT = re.compile(
    r"assert|checkpoint|file|import|load|numpy_function|print|py_func|restore|save", re.IGNORECASE
)

#: Raw operators that read or write files, or call Python.
FILE_OPERATORS = frozenset(
    {
        "EagerPyFunc", "FixedLengthRecordDataset", "FixedLengthRecordReader", "FixedLengthRecordReaderV2",
        "LMDBDataset", "LMDBReader", "LoadDataset", "MatchingFiles", "MatchingFilesDataset", "PrintV2",
        "PyFunc", "PyFuncStateless", "ReadFile", "Save", "SaveDataset", "SaveDatasetV2", "SaveSlices",
        "SaveV2", "SqlDataset", "TextLineDataset", "TextLineReader", "TextLineReaderV2", "TFRecordDataset",
        "TFRecordReader", "TFRecordReaderV2", "WholeFileReader", "WholeFileReaderV2", "WriteFile",
    }
)  # fmt: skip

_READS_A_VOCABULARY = frozenset({"IntegerLookup", "StringLookup", "TextVectorization"})


def check(origin: str, config: Any, own: Collection[str], trust: bool) -> list[str]:
    """Return what will run, in sentences; without `trust`, raise `LoadError` if that is anything.

    `own` are the names of the classes and functions that the user gave. What else lies outside Keras is
    not imported from wherever the file says, trust or not: that too is a `LoadError`.
    """
    nodes = list(_nodes(config))
    strange = sorted({name for node in nodes if (name := _strange(node, own))})
    if strange:
        raise LoadError(
            f"{origin} uses {', '.join(strange)}, which Keras does not have; "
            "name the module that defines it with --import MODULE (custom_objects= in Python)"
        )
    of_lambdas = {
        id(value) for node in nodes if node["class_name"] == "Lambda" for value in _fields(node).values()
    }
    runs = dict.fromkeys(what for node in nodes if id(node) not in of_lambdas for what in _runs(node))
    return _consented(origin, list(runs), trust)


def check_operators(origin: str, operators: Collection[str], trust: bool) -> list[str]:
    """The same for a graph: `operators` are those of `FILE_OPERATORS` that are in it."""
    return _consented(origin, [f"a graph runs TensorFlow's {operator}" for operator in operators], trust)


def _consented(origin: str, runs: list[str], trust: bool) -> list[str]:
    if runs and not trust:
        raise LoadError(
            f"{origin} would run code or use files: {'; '.join(runs)}. "
            "If you know where it comes from, allow it with --trust (trust=True in Python)"
        )
    return [f"trusted: {what}" for what in runs]


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object in a configuration."""
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
    """The name of an object that would be imported from outside Keras."""
    module = node.get("module")
    if not isinstance(module, str) or module.split(".")[0] in _TRUSTED_PACKAGES:
        return ""
    names = [str(node.get(key)).rpartition(">")[2] for key in ("registered_name", "config", "class_name")]
    if set(names) & set(own):
        return ""
    return f"{node['config'] if node['class_name'] == 'function' else node['class_name']} (of {module})"


def _runs(node: dict[str, Any]) -> Iterator[str]:
    name = node["class_name"]
    fields = _fields(node)
    layer = f"layer '{fields.get('name', name)}'"
    if name == "__lambda__":
        yield "a function is kept as Python bytecode"
    if name == "Lambda" and _has_bytecode(fields):
        yield f"{layer} is a Lambda that keeps Python bytecode"
    if name in ("TFOpLambda", "SlicingOpLambda") and not _is_tensor_symbol(fields.get("function")):
        yield f"{layer} calls tf.{fields.get('function')}"
    if name == "TensorFlowOpLayer" and (operator := _raw_operator(fields)) in FILE_OPERATORS:
        yield f"{layer} runs TensorFlow's {operator}"
    if name == "ClassMethod":
        yield f"{layer} calls a method of {fields.get('cls_ref')}"
    if name in _READS_A_VOCABULARY and isinstance(fields.get("vocabulary"), str):
        yield f"{layer} reads the file {fields['vocabulary']!r}"


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
    match = re.search(r'"?op"?: ?"(\w+)"', str(fields.get("node_def", "")))
    return match[1] if match else ""
