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
    """The response cache of a member, shared with its own clients: it is looked up with their messages."""

    version: int
    signature: Signature
    cache: CachePart
    statistics: ServedStatistics

    def look_up(self, given: Mapping[str, Array], requested: Sequence[str]) -> "MemberLookup":
        """Look up the outputs of a step."""
        # As clients do: inputs in the order of the model, and no outputs named if all are requested.
        inputs = {spec.name: given[spec.name] for spec in self.signature.inputs if spec.name in given}
        everything = len(requested) == len(self.signature.outputs)
        request = encode_request(
            "", "", self.signature, inputs, outputs=None if everything else requested, parameters=None
        )
        return MemberLookup(self, request, CacheLookup(self.cache, self.statistics, request))


@dataclass(frozen=True)
class MemberLookup:
    """The result of a lookup in a member's cache for one step."""

    member: MemberCache
    request: pb.ModelInferRequest
    lookup: CacheLookup

    @property
    def outputs(self) -> dict[str, Array] | None:
        """The outputs, if they were cached."""
        if (response := self.lookup.found) is None:
            return None
        return {
            tensor.name: from_raw(f"output {tensor.name!r}", tensor.datatype, tensor.shape, raw)
            for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    def keep(self, outputs: Mapping[str, Array]) -> None:
        """Store the member's outputs."""
        member = self.member
        self.lookup.keep(encode_response(self.request, member.version, member.signature, outputs))
