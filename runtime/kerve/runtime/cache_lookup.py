"""One look at the response cache of a version, for a request of the Open Inference Protocol."""

import hashlib
import time

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.cache import CachePart
from kerve.runtime.statistics import ServedStatistics

__all__ = ["CacheLookup"]

# What a request says of itself and not of its answer.
OF_THE_REQUEST = ("priority", "timeout")


class CacheLookup:
    """Looks for the answer to a request, and keeps it once it is computed; both are counted."""

    def __init__(self, cache: CachePart, statistics: ServedStatistics, request: pb.ModelInferRequest) -> None:
        """Look; `found` is the response without an id, or None."""
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
        """Keep what was computed because nothing was found."""
        begin = time.perf_counter_ns()
        kept = pb.ModelInferResponse()
        kept.CopyFrom(response)
        kept.ClearField("id")
        self._cache.put(self._digest, kept.SerializeToString())
        self._statistics.cache_miss(self._looked + time.perf_counter_ns() - begin)


def digest_of(request: pb.ModelInferRequest) -> bytes:
    """Return what is equal for requests that ask a model for the same outputs of the same inputs."""
    content = pb.ModelInferRequest()
    content.CopyFrom(request)
    for field in ("model_name", "model_version", "id"):
        content.ClearField(field)
    for name in OF_THE_REQUEST:
        content.parameters.pop(name, None)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
