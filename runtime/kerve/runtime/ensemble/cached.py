"""Steps of an ensemble whose members have a response cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.cache import CachePart
from kerve.runtime.cache_lookup import CacheLookup
from kerve.runtime.datatypes import Array
from kerve.runtime.protocol.oip import encode_response
from kerve.runtime.protocol.oip_client import encode_request
from kerve.runtime.protocol.tensors import from_raw
from kerve.runtime.signature import Signature
from kerve.runtime.statistics import ServedStatistics

__all__ = ["MemberCache", "MemberLookup"]


@dataclass(frozen=True)
class MemberCache:
    """The response cache of a member, which its own clients use as well: it is asked in their messages."""

    version: int
    signature: Signature
    cache: CachePart
    statistics: ServedStatistics

    def look_up(self, given: Mapping[str, Array], requested: Sequence[str]) -> "MemberLookup":
        """Look for the outputs of a step."""
        # Clients give the inputs in the order of the model, and name no outputs where they want all.
        inputs = {spec.name: given[spec.name] for spec in self.signature.inputs if spec.name in given}
        everything = len(requested) == len(self.signature.outputs)
        request = encode_request(
            "", "", self.signature, inputs, outputs=None if everything else requested, parameters=None
        )
        return MemberLookup(self, request, CacheLookup(self.cache, self.statistics, request))


@dataclass(frozen=True)
class MemberLookup:
    """What the cache of a member said to one step."""

    member: MemberCache
    request: pb.ModelInferRequest
    lookup: CacheLookup

    @property
    def outputs(self) -> dict[str, Array] | None:
        """The outputs, if they were there."""
        if (response := self.lookup.found) is None:
            return None
        return {
            tensor.name: from_raw(f"output {tensor.name!r}", tensor.datatype, tensor.shape, raw)
            for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    def keep(self, outputs: Mapping[str, Array]) -> None:
        """Keep what the member computed."""
        member = self.member
        self.lookup.keep(encode_response(self.request, member.version, member.signature, outputs))
