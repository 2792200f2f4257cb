"""The JSON of TensorFlow Serving's REST API: decodes rows, columns and examples, encodes outputs.

The format is documented in "RESTful API" of TensorFlow Serving.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from kerve.runtime.datatypes import BF16, BYTES, Array, float32_to_bfloat16
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.json_tensors import from_base64, from_json
from kerve.runtime.protocol.tensors import object_array
from kerve.runtime.signature import Signature, TensorSpec, check_inputs
from kerve.tensorflow.core.example import example_pb2, feature_pb2
from kerve.tensorflow_serving.apis import input_pb2

__all__ = ["INSTANCES", "decode_examples", "decode_tensors", "encode_tensors"]

# Row format and column format.
INSTANCES, INPUTS = "instances", "inputs"
# The key of binary values in JSON.
BASE64 = "b64"
# The suffix of output names whose bytes are binary, not text.
BINARY = "_bytes"

# The kind of a feature by the types of its values. JSON's true and false count as numbers.
FEATURES = ({int, bool}, "int64_list"), ({int, bool, float}, "float_list"), ({str, dict}, "bytes_list")


def decode_tensors(document: Mapping[str, Any], model: str, signature: Signature) -> dict[str, Array]:
    """Return the tensors in the body of a predict request, in the inputs' datatypes.

    Raises InvalidArgumentError unless it contains `instances` or `inputs` that fit the signature.
    """
    given = [key for key in (INSTANCES, INPUTS) if key in document]
    if len(given) != 1:
        raise InvalidArgumentError(
            f"expected either {INSTANCES!r} (a list of rows) or {INPUTS!r} (whole tensors), "
            f"got {'both' if given else 'neither'}"
        )
    value = document[given[0]]
    columns = columns_of(value, signature) if given == [INSTANCES] else value
    if not is_named(columns):
        columns = {only_input(signature, given[0]): columns}
    check_inputs(signature, model, list(columns))
    return {name: tensor(signature.input(name), column) for name, column in columns.items()}


def columns_of(rows: object, signature: Signature) -> object:
    """Convert rows of named values to columns by name; return other rows unchanged."""
    if not isinstance(rows, list) or not rows:
        raise InvalidArgumentError(f"{INSTANCES}: expected a list of at least one row, got {shown(rows)}")
    if not any(is_named(row) for row in rows):
        return rows
    names = rows[0].keys() if is_named(rows[0]) else {spec.name for spec in signature.inputs}
    for number, row in enumerate(rows):
        if not is_named(row) or row.keys() != names:
            raise InvalidArgumentError(
                f"{INSTANCES}: expected an object with {', '.join(sorted(names))} in each row, "
                f"got {shown(row)} in row {number}"
            )
    return {name: [row[name] for row in rows] for name in names}


def is_named(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is an object of named values, not a binary value."""
    return isinstance(value, dict) and value.keys() != {BASE64}


def only_input(signature: Signature, key: str) -> str:
    """Return the name of the input to which unnamed values belong."""
    needed = [spec.name for spec in signature.inputs if not spec.optional] or [
        spec.name for spec in signature.inputs
    ]
    if len(needed) != 1:
        raise InvalidArgumentError(
            f"{key}: the model has several inputs; expected their names with the values: {', '.join(needed)}"
        )
    return needed[0]


def tensor(spec: TensorSpec, value: object) -> Array:
    """Return the nested list of a tensor as an array."""
    label = f"input {spec.name!r}"
    if spec.datatype == BYTES.name:
        elements = np.array(value, object)
        encoded = [as_bytes(label, each) for each in elements.ravel().tolist()]
        return object_array(encoded).reshape(elements.shape)
    if spec.datatype == BF16.name:
        return float32_to_bfloat16(from_json(label, "FP32", value))
    return from_json(label, spec.datatype, value)


def as_bytes(label: str, value: object) -> bytes:
    """Return the bytes of a string, or of an object with base64."""
    if isinstance(value, str):
        return value.encode()
    coded = value.get(BASE64) if isinstance(value, dict) and not is_named(value) else None
    if not isinstance(coded, str):
        raise InvalidArgumentError(f'{label}: expected text or {{"{BASE64}": ...}}, got {shown(value)}')
    return from_base64(label, coded)


def encode_tensors(outputs: Mapping[str, Array], *, rows: bool) -> dict[str, Any]:
    """Return the body of a predict response: rows if the request had rows, else whole tensors.

    A single output has no name. Raises InvalidArgumentError if the outputs cannot be split into rows.
    """
    values = {name: plain(name, array) for name, array in outputs.items()}
    if not rows:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    lengths = {name: array.shape[:1] for name, array in outputs.items()}
    if () in lengths.values() or len(set(lengths.values())) > 1:
        raise InvalidArgumentError(
            f"the outputs do not have one value for each row; send {INPUTS!r} in place of {INSTANCES!r}"
        )
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    }


def plain(name: str, array: Array) -> Any:
    """Return an array as nested lists for JSON."""
    if array.dtype != BYTES.dtype:
        return array.tolist()
    show = in_base64 if name.endswith(BINARY) else as_text
    elements = np.empty(array.shape, object)
    elements.ravel()[:] = [show(each) for each in array.ravel().tolist()]
    return elements.tolist()


def in_base64(element: bytes) -> dict[str, str]:
    """Return the JSON form of binary bytes."""
    return {BASE64: base64.b64encode(element).decode()}


def as_text(element: bytes) -> str:
    """Decode bytes as UTF-8, replacing invalid sequences."""
    return element.decode("utf-8", "replace")


def decode_examples(document: Mapping[str, Any]) -> input_pb2.Input:
    """Return the examples in the body of a classify or regress request."""
    examples, context = document.get("examples"), document.get("context")
    if not isinstance(examples, list) or not examples:
        raise InvalidArgumentError(f"examples: expected a list of at least one object, got {shown(examples)}")
    found = input_pb2.Input()
    target: Any = found.example_list
    if context is not None:
        target = found.example_list_with_context
        target.context.CopyFrom(example_of("context", context))
    target.examples.extend(example_of(f"example {number}", each) for number, each in enumerate(examples))
    return found


def example_of(where: str, features: object) -> example_pb2.Example:
    """Convert an object of features to a tf.Example."""
    if not isinstance(features, dict):
        raise InvalidArgumentError(f"{where}: expected an object of features, got {shown(features)}")
    example = example_pb2.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        example.features.feature[name].CopyFrom(feature_of(f"{where}: feature {name!r}", values))
    return example


def feature_of(where: str, values: Sequence[Any]) -> feature_pb2.Feature:
    """Convert values of one kind to a feature; an empty feature has no kind."""
    feature, types = feature_pb2.Feature(), {type(each) for each in values}
    if not types:
        return feature
    kind = next((kind for allowed, kind in FEATURES if types <= allowed), None)
    if kind is None:
        raise InvalidArgumentError(f"{where}: expected numbers, or texts, got {shown(values)}")
    if kind == "bytes_list":
        values = [as_bytes(where, each) for each in values]
    try:
        getattr(feature, kind).value.extend(values)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{where}: expected numbers of 64 bits: {error}") from error
    return feature


def shown(value: object) -> str:
    """Return a value for a message, truncated."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
