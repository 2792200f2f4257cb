"""Triton's model extensions of the Open Inference Protocol: configuration, statistics, repository."""

from collections.abc import Iterable, Mapping
from typing import Any

from kerve.inference import grpc_service_pb2 as pb
from kerve.inference import model_config_pb2
from kerve.runtime.errors import InvalidArgumentError, UnimplementedError
from kerve.runtime.lifecycle.states import State, Status
from kerve.runtime.statistics import Duration, Snapshot

__all__ = [
    "add_statistics",
    "check_repository",
    "decode_load",
    "decode_unload",
    "loaded",
    "model_config",
    "repository_index",
    "unloaded",
]


def model_config(config: model_config_pb2.ModelConfig) -> pb.ModelConfigResponse:
    """Return the response of ModelConfig."""
    return pb.ModelConfigResponse(config=config)


def repository_index(statuses: Iterable[Status], *, ready: bool) -> pb.RepositoryIndexResponse:
    """Return the response of RepositoryIndex; `ready`: only ready versions."""
    response = pb.RepositoryIndexResponse()
    for status in statuses:
        if not ready or status.state is State.READY:
            version = str(status.version) if status.version else ""
            response.models.add(
                name=status.name,
                version=version,
                state=status.state.value,
                reason=status.reason or status.remark,
            )
    return response


def decode_load(message: pb.RepositoryModelLoadRequest) -> tuple[str, str | None, dict[str, bytes]]:
    """Return the model to load, the configuration to use instead of its own, and files by path."""
    config = None
    files = {}
    for key, parameter in message.parameters.items():
        is_file = key.startswith("file:")
        if not is_file and key != "config":
            raise InvalidArgumentError(
                f"unrecognized load parameter {key!r}; expected 'config' and 'file:<version>/<path>'"
            )
        expected = "bytes_param" if is_file else "string_param"
        if parameter.WhichOneof("parameter_choice") != expected:
            raise InvalidArgumentError(f"invalid value type for load parameter {key!r}, expected {expected}")
        if is_file:
            files[key.removeprefix("file:")] = parameter.bytes_param
        else:
            config = parameter.string_param
    return model_name(message), config, files


def decode_unload(message: pb.RepositoryModelUnloadRequest) -> tuple[str, bool]:
    """Return the model to unload, and whether to unload the members that were loaded for an ensemble."""
    dependents = message.parameters["unload_dependents"]
    if dependents.WhichOneof("parameter_choice") not in (None, "bool_param"):
        raise InvalidArgumentError(
            "invalid value type for 'unload_dependents' parameter, expected bool_param"
        )
    return model_name(message), dependents.bool_param


def model_name(message: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """Return the model's name; KServe's variant has it in the field that is Triton's repository name."""
    if message.model_name:
        check_repository(message.repository_name)
    return message.model_name or message.repository_name


def check_repository(name: str) -> None:
    """Raise UnimplementedError for a repository name: all of a server's repositories are treated as one."""
    if name:
        raise UnimplementedError(f"'repository_name' specification is not supported; got {name!r}")


def loaded(name: str) -> pb.RepositoryModelLoadResponse:
    """Return the response of RepositoryModelLoad; Triton's clients ignore KServe's fields."""
    return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)


def unloaded(name: str) -> pb.RepositoryModelUnloadResponse:
    """Return the response of RepositoryModelUnload."""
    return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


def add_statistics(
    response: pb.ModelStatisticsResponse,
    name: str,
    version: int,
    computed: Snapshot,
    queued: Mapping[str, Any],
) -> None:
    """Add one version's statistics, from its executors and its queue.

    The transports assemble inputs and split outputs in parallel to the computation, without measuring it:
    `compute_input` and `compute_output` have counts and 0 ns.
    """
    message = response.model_stats.add(
        name=name,
        version=str(version),
        last_inference=computed.last_inference,
        inference_count=computed.inference_count,
        execution_count=computed.execution_count,
    )
    stats = message.inference_stats
    fill(stats.success, of_histogram(queued["succeeded"]).plus(computed.cache_hits))
    fill(stats.fail, of_histogram(queued["failed"]))
    fill(stats.queue, of_histogram(queued["waited"]))
    for part, nanoseconds in (
        (stats.compute_input, 0),
        (stats.compute_infer, computed.computed.nanoseconds),
        (stats.compute_output, 0),
    ):
        fill(part, Duration(computed.computed.count, nanoseconds))
    fill(stats.cache_hit, computed.cache_hits)
    fill(stats.cache_miss, computed.cache_misses)
    for rows, took in computed.batches.items():
        batch = message.batch_stats.add(batch_size=rows)
        fill(batch.compute_input, Duration(took.count, 0))
        fill(batch.compute_infer, took)
        fill(batch.compute_output, Duration(took.count, 0))


def fill(message: pb.StatisticDuration, duration: Duration) -> None:
    """Write a duration into its message."""
    message.count, message.ns = duration.count, duration.nanoseconds


def of_histogram(histogram: Mapping[str, Any]) -> Duration:
    """Return the count and the total time of a histogram."""
    return Duration(sum(histogram["counts"]), histogram["sum"])
