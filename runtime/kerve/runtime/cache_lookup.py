"""One lookup in the response cache of a version, for a request of the Open Inference Protocol."""

import hashlib
import time

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.cache import CachePart
from kerve.runtime.statistics import ServedStatistics

__all__ = ["CacheLookup"]

# Parameters that do not influence the response.
OF_THE_REQUEST = ("priority", "timeout")


class CacheLookup:
    """Looks up the response to a request, and stores it once computed; both are counted."""

    def __init__(self, cache: CachePart, statistics: ServedStatistics, request: pb.ModelInferRequest) -> None:
        """Look up the request; `found` is the response without an id, or None."""
        begin = time.perf_counter_ns()
        self._cache = cache
        self._statistics = statistics
        self._digest = digest_of(request)
        answer = cache.get(self._digest)
        self.found = None if answer is None else pb.ModelInferResponse.FromString(answer)
        self._looked = time.perf_counter_ns() - begin
        if self.found is not None:
            statistics.cache_hit(self._looked)

    def keep(self, response: pb.ModelInferResponse) -> None:
        """Store the response that was computed after a cache miss."""
        begin = time.perf_counter_ns()
        kept = pb.ModelInferResponse()
        kept.CopyFrom(response)
        kept.ClearField("id")
        self._cache.put(self._digest, kept.SerializeToString())
        self._statistics.cache_miss(self._looked + time.perf_counter_ns() - begin)


def digest_of(request: pb.ModelInferRequest) -> bytes:
    """Return a digest that is equal for requests with the same inputs and requested outputs."""
    content = pb.ModelInferRequest()
    content.CopyFrom(request)
    for field in ("model_name", "model_version", "id"):
        content.ClearField(field)
    for name in OF_THE_REQUEST:
        content.parameters.pop(name, None)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
