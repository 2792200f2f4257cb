"""State shared by all calls of a client: connection, token, model signatures, mapping of errors."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

from collections.abc import Callable
from typing import Any

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime import rpc
from kerve.runtime.errors import Code, ServingError, error_for
from kerve.runtime.protocol import evaluation, oip, oip_client
from kerve.runtime.protocol.status import decode_retry_after
from kerve.runtime.signature import Signature

__all__ = ["Channel"]

OPTIONS = [("grpc.max_receive_message_length", 2**31 - 1), ("grpc.max_send_message_length", 2**31 - 1)]
# Words of gRPC's errors if the connection or the name resolution failed.
UNREACHED = ("connect", "errors resolving")


class Channel:
    """A connection to a server, opened on the first call; thread-safe."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None = None, token: str | None = None
    ) -> None:
        self.address = address
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        if credentials is None:
            self.grpc = grpc.insecure_channel(address, OPTIONS)
        else:
            self.grpc = grpc.secure_channel(address, credentials, OPTIONS)
        self.inference: dict[str, Any] = rpc.calls(self.grpc, oip.SERVICE)
        self.evaluation: dict[str, Any] = rpc.calls(self.grpc, evaluation.SERVICE)
        self._signatures: dict[tuple[str, str], Signature] = {}

    def close(self) -> None:
        """Close the connection."""
        self.grpc.close()

    def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        """Return the response of a unary call; raises the ServingError for the server's status."""
        return self.answer(lambda: method(request, timeout=timeout, metadata=self.metadata))

    def answer(self, wait: Callable[[], Any]) -> Any:
        """Return the result of `wait`; raises as `call` does."""
        try:
            return wait()
        except grpc.RpcError as error:
            raise self.failure(error) from error

    def failure(self, error: Any) -> ServingError:
        """Return the exception for a call that failed."""
        # The cause may be a new version with another signature.
        self._signatures.clear()
        code, details = Code(error.code().value[0]), error.details() or ""
        if code is Code.UNAVAILABLE and any(words in details.lower() for words in UNREACHED):
            details = f"no server answers at {self.address}, expected HOST:PORT of a gRPC port: {details}"
        return error_for(code, details, retry_after=decode_retry_after(error.trailing_metadata() or ()))

    def model(self, name: str, version: str, timeout: float | None) -> pb.ModelMetadataResponse:
        """Return a model's metadata."""
        request = pb.ModelMetadataRequest(name=name, version=version)
        message: pb.ModelMetadataResponse = self.call(self.inference["ModelMetadata"], request, timeout)
        return message

    def signature(self, name: str, version: str, timeout: float | None) -> Signature:
        """Return a model's signature; it is requested once and cached."""
        signature = self._signatures.get((name, version))
        if signature is None:
            signature = oip_client.decode_metadata(self.model(name, version, timeout))
            self._signatures[name, version] = signature
        return signature
