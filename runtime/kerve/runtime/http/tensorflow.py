"""TensorFlow Serving's REST API (`/v1/models/...`), implemented like its gRPC API.

GET  /v1/models                                        the models that are served, in KServe's V1 protocol
GET  /v1/models/NAME[/versions/N|/labels/L]             states of versions
GET  /v1/models/NAME[/versions/N|/labels/L]/metadata    inputs and outputs
POST /v1/models/NAME[/versions/N|/labels/L]:predict     and :classify, :regress
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from kerve.runtime.callers import Caller
from kerve.runtime.catalog import Catalog
from kerve.runtime.datatypes import Array
from kerve.runtime.errors import Code, InvalidArgumentError
from kerve.runtime.gateway import Gateway
from kerve.runtime.http.wsgi import Request, Response, Route, compact, json_response
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.lifecycle.states import State
from kerve.runtime.protocol import oip_client, tfs, tfs_json
from kerve.runtime.security.permissions import Permission
from kerve.runtime.servicers.model_service import statuses_of
from kerve.tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

__all__ = ["TensorFlowRest"]

MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"


class TensorFlowRest:
    """Answers TensorFlow Serving's REST clients with their own authorization."""

    def __init__(self, manager: ModelManager, catalog: Catalog[ServedVersion], gateway: Gateway) -> None:
        self._manager = manager
        self._catalog = catalog
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            Route("GET", "/v1/models/?", self.models, Permission.READ),
            Route("GET", MODEL, self.status, Permission.READ),
            Route("GET", MODEL + "/metadata", self.metadata, Permission.READ),
            Route("POST", MODEL + ":predict", self.predict, Permission.INFER),
            Route("POST", MODEL + ":classify", self.classify, Permission.INFER),
            Route("POST", MODEL + ":regress", self.regress, Permission.INFER),
        ]

    def models(self, _: Request) -> Response:
        """Return the names of the ready models, in KServe's V1 protocol."""
        return json_response({"models": sorted({each.name for each in self._manager.served()})})

    def status(self, _: Request, name: str, version: str, label: str) -> Response:
        """Return the states of one version, or of all with KServe's V1 `ready` added."""
        statuses = statuses_of(self._manager, name, version or label)
        found = plain(tfs.model_status(statuses))
        if not (version or label):
            found |= {"name": name, "ready": any(each.state is State.READY for each in statuses)}
        for each in found["model_version_status"]:  # the message has tensorflow.error.Code as a number
            each["status"]["error_code"] = Code(each["status"]["error_code"]).name
        return json_response(found)

    def metadata(self, _: Request, name: str, version: str, label: str) -> Response:
        """Return the inputs and outputs of a model."""
        served = self._catalog.find(name, version or label)
        found = tfs.metadata(served.name, served.version, served.signature, ["signature_def"])
        packed = get_model_metadata_pb2.SignatureDefMap.FromString(found.metadata["signature_def"].value)
        return json_response(
            {"model_spec": plain(found.model_spec), "metadata": {"signature_def": plain(packed)}}
        )

    def predict(self, request: Request, name: str, version: str, label: str) -> Response:
        """Compute outputs, from rows or from whole tensors."""

        def answer(served: ServedVersion) -> Response:
            document = read_document(request)
            tensors = tfs_json.decode_tensors(document, name, served.signature)
            outputs = self._compute(request, served, tensors)
            return Response(compact(tfs_json.encode_tensors(outputs, rows=tfs_json.INSTANCES in document)))

        return self._catalog.ask(name, version or label, answer)

    def classify(self, request: Request, name: str, version: str, label: str) -> Response:
        """Score the classes of each example."""
        served, outputs = self._compute_examples(request, name, version or label)
        results = tfs.classifications(served.signature, outputs).classifications
        return json_response(
            {"results": [[[each.label, each.score] for each in row.classes] for row in results]}
        )

    def regress(self, request: Request, name: str, version: str, label: str) -> Response:
        """Compute one number for each example."""
        served, outputs = self._compute_examples(request, name, version or label)
        results = tfs.regressions(served.signature, outputs).regressions
        return json_response({"results": [each.value for each in results]})

    def _compute_examples(
        self, request: Request, name: str, route: str
    ) -> tuple[ServedVersion, Mapping[str, Array]]:
        def compute(served: ServedVersion) -> tuple[ServedVersion, Mapping[str, Array]]:
            examples = tfs_json.decode_examples(read_document(request))
            tensors = tfs.decode_examples(examples, served.signature)
            return served, self._compute(request, served, tensors)

        return self._catalog.ask(name, route, compute)

    def _compute(
        self, request: Request, served: ServedVersion, tensors: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Compute the tensors like an OIP request, with the version whose signature they were decoded for."""
        message = oip_client.encode_request(
            served.name, str(served.version), served.signature, tensors, outputs=None, parameters=None
        )
        answer = self._gateway.call("ModelInfer", message, Caller(request.peer, request.headers))
        return oip_client.decode_response(answer)


def read_document(request: Request) -> Mapping[str, Any]:
    """Return the JSON of a request for the one signature that models have."""
    document = request.json()
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise InvalidArgumentError(f"signature_name: expected text, got {signature!r:.60}")
    tfs.check_signature(model_pb2.ModelSpec(signature_name=signature))
    return document


def plain(message: Message) -> dict[str, Any]:
    """Return a message in protobuf's JSON form, with the fields' own names and unset fields."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
