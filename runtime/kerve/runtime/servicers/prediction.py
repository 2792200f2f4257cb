"""tensorflow.serving.PredictionService without Predict: classify and regress examples, model metadata."""

from collections.abc import Mapping

import grpc

from kerve.runtime.callers import Caller
from kerve.runtime.catalog import Catalog
from kerve.runtime.datatypes import Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.gateway import Gateway
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.protocol import oip_client, tfs
from kerve.runtime.servicers.edge import answers_errors
from kerve.tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

__all__ = ["PredictionServicer"]

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class PredictionServicer:
    """Converts examples to tensors, which are computed like any other request."""

    def __init__(self, catalog: Catalog[ServedVersion], gateway: Gateway) -> None:
        self._catalog = catalog
        self._gateway = gateway

    @answers_errors
    def Classify(  # noqa: N802  the protocol's name
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Score the classes of each example."""
        served, outputs = self._compute(request.model_spec, request.input, context)
        return classification_pb2.ClassificationResponse(
            result=tfs.classifications(served.signature, outputs),
            model_spec=tfs.spec_of(served.name, served.version),
        )

    @answers_errors
    def Regress(  # noqa: N802  the protocol's name
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Compute one number for each example."""
        served, outputs = self._compute(request.model_spec, request.input, context)
        return regression_pb2.RegressionResponse(
            result=tfs.regressions(served.signature, outputs),
            model_spec=tfs.spec_of(served.name, served.version),
        )

    @answers_errors
    def MultiInference(  # noqa: N802  the protocol's name
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Classify and regress the same examples, with one model or several."""
        if not request.tasks:
            raise InvalidArgumentError("expected at least one task, got none")
        response = inference_pb2.MultiInferenceResponse()
        for task in request.tasks:
            if task.method_name not in (CLASSIFY, REGRESS):
                raise InvalidArgumentError(
                    f"method_name: expected {CLASSIFY} or {REGRESS}, got {task.method_name!r}"
                )
            served, outputs = self._compute(task.model_spec, request.input, context)
            result = response.results.add(model_spec=tfs.spec_of(served.name, served.version))
            signature = served.signature
            if task.method_name == CLASSIFY:
                result.classification_result.CopyFrom(tfs.classifications(signature, outputs))
            else:
                result.regression_result.CopyFrom(tfs.regressions(signature, outputs))
        return response

    @answers_errors
    def GetModelMetadata(  # noqa: N802  the protocol's name
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, _: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the inputs and outputs of a model."""
        served = self._catalog.find(*tfs.route_of(request.model_spec))
        return tfs.metadata(served.name, served.version, served.signature, request.metadata_field)

    def _compute(
        self, spec: model_pb2.ModelSpec, message: input_pb2.Input, context: grpc.ServicerContext
    ) -> tuple[ServedVersion, Mapping[str, Array]]:
        def compute(served: ServedVersion) -> tuple[ServedVersion, Mapping[str, Array]]:
            tfs.check_signature(spec)
            signature = served.signature
            tensors = tfs.decode_examples(message, signature)
            request = oip_client.encode_request(
                served.name, str(served.version), signature, tensors, outputs=None, parameters=None
            )
            response = self._gateway.call(
                "ModelInfer", request, Caller.of(context), timeout=context.time_remaining()
            )
            return served, oip_client.decode_response(response)

        return self._catalog.ask(*tfs.route_of(spec), compute)
