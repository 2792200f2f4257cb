"""TensorFlow Serving's API on the server: decodes requests, encodes outputs and signatures."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kerve.runtime.datatypes import BYTES, DATATYPES, Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.lifecycle.states import State, Status
from kerve.runtime.protocol.oip import InferRequest
from kerve.runtime.protocol.tensors import object_array
from kerve.runtime.protocol.tfs_tensors import NUMBERS, datatype_of, decode_tensor, encode_tensor, shape_of
from kerve.runtime.signature import Signature, TensorSpec, check_inputs, check_outputs, check_tensor, rows_of
from kerve.tensorflow.core.example import example_pb2, feature_pb2
from kerve.tensorflow.core.protobuf import meta_graph_pb2
from kerve.tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    regression_pb2,
)

__all__ = ["MODEL_SERVICE", "PREDICTION_SERVICE", "SIGNATURE"]

PREDICTION_SERVICE = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]

# The name of the only signature of each model, and its method.
SIGNATURE = "serving_default"
METHOD = "tensorflow/serving/predict"

STATES = {
    State.UNKNOWN: get_model_status_pb2.ModelVersionStatus.UNKNOWN,
    State.LOADING: get_model_status_pb2.ModelVersionStatus.LOADING,
    State.READY: get_model_status_pb2.ModelVersionStatus.AVAILABLE,
    State.UNLOADING: get_model_status_pb2.ModelVersionStatus.UNLOADING,
    State.UNAVAILABLE: get_model_status_pb2.ModelVersionStatus.END,
}
# The error code of failed versions: FAILED_PRECONDITION of tensorflow.error.Code.
FAILED = 9


def route_of(spec: model_pb2.ModelSpec) -> tuple[str, str]:
    """Return the model and the version or label of a request."""
    match spec.WhichOneof("version_choice"):
        case "version":
            return spec.name, str(spec.version.value)
        case "version_label":
            return spec.name, spec.version_label
        case _:
            return spec.name, ""


def check_signature(spec: model_pb2.ModelSpec) -> None:
    """Raise InvalidArgumentError unless a request names the only signature, or none."""
    if spec.signature_name not in ("", SIGNATURE):
        raise InvalidArgumentError(
            f"signature {spec.signature_name!r} is not known; every model has one, {SIGNATURE!r}"
        )


def spec_of(name: str, version: int) -> model_pb2.ModelSpec:
    """Return the spec of the model that answered."""
    spec = model_pb2.ModelSpec(name=name, signature_name=SIGNATURE)
    spec.version.value = version
    return spec


def decode_predict(message: predict_pb2.PredictRequest, signature: Signature) -> InferRequest:
    """Return the request in a message; raises InvalidArgumentError if it does not fit the signature."""
    check_signature(message.model_spec)
    model = message.model_spec.name
    check_inputs(signature, model, list(message.inputs))
    check_outputs(signature, model, message.output_filter)
    sizes: dict[str, tuple[int, str]] = {}
    inputs = {}
    for name in message.inputs:
        tensor = message.inputs[name]
        check_tensor(signature.input(name), datatype_of(tensor), shape_of(tensor), sizes)
        inputs[name] = decode_tensor(f"input {name!r}", tensor)
    return InferRequest(
        inputs=inputs,
        rows=rows_of(signature, inputs),
        requested=frozenset(message.output_filter) or None,
        parameters={},
    )


def encode_predict(
    message: predict_pb2.PredictRequest, version: int, signature: Signature, outputs: Mapping[str, Array]
) -> predict_pb2.PredictResponse:
    """Return the response to a request: the requested outputs, or all."""
    response = predict_pb2.PredictResponse(model_spec=spec_of(message.model_spec.name, version))
    for name in message.output_filter or [spec.name for spec in signature.outputs]:
        response.outputs[name].CopyFrom(encode_tensor(signature.output(name).datatype, outputs[name]))
    return response


def metadata(
    name: str, version: int, signature: Signature, fields: Sequence[str]
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Return the metadata of a model; raises InvalidArgumentError unless `signature_def` is requested."""
    if list(fields) != ["signature_def"]:
        raise InvalidArgumentError(
            f"metadata_field: expected signature_def, got {', '.join(fields) or 'none'}"
        )
    definition = meta_graph_pb2.SignatureDef(method_name=METHOD)
    for specs, target in ((signature.inputs, definition.inputs), (signature.outputs, definition.outputs)):
        for spec in specs:
            info = target[spec.name]
            info.name, info.dtype = f"{spec.name}:0", NUMBERS[spec.datatype]  # type: ignore[assignment]  # its number
            for size in spec.shape:
                info.tensor_shape.dim.add(size=size if isinstance(size, int) else -1)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signatures.signature_def[SIGNATURE].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec_of(name, version))
    response.model_spec.ClearField("signature_name")
    # Not Any.Pack: it uses protobuf's default pool, which does not contain these messages.
    packed = response.metadata["signature_def"]
    packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.value = signatures.SerializeToString(deterministic=True)
    return response


def model_status(statuses: Iterable[Status]) -> get_model_status_pb2.GetModelStatusResponse:
    """Return the states of versions, the newest first, as TensorFlow Serving reports them."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in sorted(statuses, key=lambda each: -each.version):
        failed = status.state is State.UNAVAILABLE and status.reason != "unloaded"
        added = response.model_version_status.add(version=status.version, state=STATES[status.state])
        added.status.error_code = FAILED if failed else 0
        added.status.error_message = status.reason if failed else ""
    return response


def decode_examples(message: input_pb2.Input, signature: Signature) -> dict[str, Array]:
    """Return the inputs in a list of tf.Example: features are inputs of the same name, examples are rows."""
    if message.WhichOneof("kind") == "example_list_with_context":
        with_context = message.example_list_with_context
        examples = [merged(with_context.context, each) for each in with_context.examples]
    else:
        examples = list(message.example_list.examples)
    if not examples:
        raise InvalidArgumentError("expected at least one example, got none")
    if not signature.batched:
        raise InvalidArgumentError("the model has no batch dimension for examples; use Predict")
    return {
        spec.name: feature_column(spec, examples) for spec in signature.inputs if is_given(spec, examples)
    }


def merged(context: example_pb2.Example, example: example_pb2.Example) -> example_pb2.Example:
    """Return an example, completed with the features of the context that it lacks."""
    whole = example_pb2.Example()
    whole.CopyFrom(context)
    whole.MergeFrom(example)
    return whole


def is_given(spec: TensorSpec, examples: Sequence[example_pb2.Example]) -> bool:
    """Return whether an input is given or required."""
    return not spec.optional or any(spec.name in each.features.feature for each in examples)


def feature_column(spec: TensorSpec, examples: Sequence[example_pb2.Example]) -> Array:
    """Return one input of all examples."""
    rows = []
    for position, example in enumerate(examples):
        where = f"example {position}: feature {spec.name!r}"
        if spec.name not in example.features.feature:
            raise InvalidArgumentError(f"{where} is missing")
        rows.append(feature_values(where, spec, example.features.feature[spec.name]))
    shape = tuple(-1 if not isinstance(size, int) else size for size in spec.shape[1:])
    try:
        return np.stack([row.reshape(shape) if shape.count(-1) < 2 else row for row in rows])
    except ValueError as error:
        raise InvalidArgumentError(
            f"feature {spec.name!r}: the values do not fit the model's shape: {error}"
        ) from error


def feature_values(where: str, spec: TensorSpec, feature: feature_pb2.Feature) -> Array:
    """Return the values of a feature in the input's datatype."""
    kind = feature.WhichOneof("kind")
    values = [] if kind is None else list(getattr(feature, kind).value)
    if (spec.datatype == BYTES.name) != (kind == "bytes_list") or spec.datatype == "BF16":
        raise InvalidArgumentError(f"{where}: expected {spec.datatype}, got {kind or 'no value'}")
    if spec.datatype == BYTES.name:
        return object_array(values)
    dtype = DATATYPES[spec.datatype].dtype
    try:
        if dtype.kind in "iub" and kind != "int64_list":
            raise ValueError(f"got {kind}")
        return np.array(values, dtype)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{where}: expected {spec.datatype}: {error}") from error


def classifications(
    signature: Signature, outputs: Mapping[str, Array]
) -> classification_pb2.ClassificationResult:
    """Return the scores of each row's classes, with their labels if the model has any."""
    spec, scores = scores_of(signature, outputs)
    result = classification_pb2.ClassificationResult()
    for row in scores.tolist():
        classes = result.classifications.add().classes
        for index, score in enumerate(row):
            classes.add(label=spec.labels[index] if index < len(spec.labels) else "", score=score)
    return result


def scores_of(signature: Signature, outputs: Mapping[str, Array]) -> tuple[TensorSpec, Array]:
    """Return the output with class scores: a two-dimensional float output, preferably one with labels."""
    fitting = [
        spec
        for spec in signature.outputs
        if outputs[spec.name].ndim == 2 and spec.datatype in ("FP16", "FP32", "FP64")
    ]
    if not fitting:
        raise InvalidArgumentError("the model has no output with a score for each class; use Predict")
    spec = next((spec for spec in fitting if spec.labels), fitting[0])
    return spec, outputs[spec.name]


def regressions(signature: Signature, outputs: Mapping[str, Array]) -> regression_pb2.RegressionResult:
    """Return the value of each row, from the first output that has one number per row."""
    for spec in signature.outputs:
        array = outputs[spec.name]
        if array.dtype.kind in "fiu" and spec.datatype != "BF16" and array.size == len(array):
            return regression_pb2.RegressionResult(
                regressions=[regression_pb2.Regression(value=value) for value in array.ravel().tolist()]
            )
    raise InvalidArgumentError("the model has no output with one number for each row; use Predict")
