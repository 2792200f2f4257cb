"""The cold path, where what the gateway answers is made up."""

from types import SimpleNamespace
from typing import Any

import pytest

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.cache import ResponseCache
from kerve.runtime.catalog import Catalog
from kerve.runtime.servicers.cold import ColdInferServicer
from kerve.runtime.shared_memory import Regions

CONTEXT: Any = SimpleNamespace(
    invocation_metadata=tuple, peer=lambda: "ipv4:127.0.0.1:1", time_remaining=lambda: None
)


@pytest.mark.parametrize(("answering", "asked"), [("1", 1), ("2", 2)])
def test_the_answer_of_another_version_is_not_kept(answering: str, asked: int) -> None:
    calls = []

    def call(_: str, request: pb.ModelInferRequest, *__: Any, **___: Any) -> pb.ModelInferResponse:
        calls.append(request)
        return pb.ModelInferResponse(model_version=answering)

    statistics = SimpleNamespace(cache_hit=lambda _: None, cache_miss=lambda _: None)
    served = SimpleNamespace(version=1, plan=None, cache=ResponseCache(10_000).part(), statistics=statistics)
    catalog: Catalog[Any] = Catalog()
    catalog.publish("m", {"": served, "1": served})
    gateway: Any = SimpleNamespace(call=call)
    cold = ColdInferServicer(Regions(), gateway, catalog, lambda: True)
    for _ in range(2):
        assert cold.answer(pb.ModelInferRequest(model_name="m"), CONTEXT).model_version == answering
    assert len(calls) == asked
