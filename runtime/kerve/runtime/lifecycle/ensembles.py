"""Starts versions of ensembles: chains of models that are served as one."""

import logging
from dataclasses import replace
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.catalog import Catalog
from kerve.runtime.config import Settings
from kerve.runtime.config.batching import batching_of
from kerve.runtime.config.complete import complete, refuse_unsupported
from kerve.runtime.ensemble.binding import Member, bind
from kerve.runtime.ensemble.cached import MemberCache
from kerve.runtime.ensemble.executor import EnsembleExecutor
from kerve.runtime.ensemble.run import BoundStep, Plan
from kerve.runtime.ensemble.scheme import Step, read_scheme
from kerve.runtime.ensemble.stateful import SequenceHost, Stateful
from kerve.runtime.errors import ArtifactError, ServingError
from kerve.runtime.lifecycle.served import Limits, ServedVersion, cache_of
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import ServedModel, Transport

__all__ = ["members_fingerprint", "start_ensemble"]

log = logging.getLogger(__name__)

# Requests of an ensemble in flight at a time if its configuration sets no limit: they wait in the members'
# queues, which refuse requests when full, and not in the ensemble's own.
MOST_UNDER_WAY = 128

# Rows of a batch where requests are never split.
WHOLE = 2**31 - 1


def start_ensemble(
    name: str,
    version: int,
    folder: Path,
    settings: Settings,
    transport: Transport,
    limits: Limits,
    catalog: Catalog[ServedVersion],
) -> ServedVersion:
    """Bind an ensemble to the current versions of its members and start it.

    Raises ArtifactError if that is not possible.
    """
    refuse_unsupported(settings.config, folder)
    scheme = read_scheme(settings.config, folder)
    members = tuple(member_of(step, catalog, folder) for step in scheme.steps)
    bound = bind(
        scheme,
        settings.config,
        [Member(member.signature, member.config.max_batch_size) for member in members],
        folder,
    )
    config = pb.ModelConfig.FromString(settings.config.SerializeToString())
    config.max_batch_size = bound.max_batch_size
    batching = batching_of(
        replace(settings, config=config, batch_buckets=()),
        max_queue_size=limits.max_queue_size,
        triton_codes=limits.triton_codes,
    )
    keeps_states = any(member.keeps_states for member in members)
    if config.response_cache.enable and keeps_states:
        raise ArtifactError(
            f"{folder}: response_cache: the outputs of an ensemble whose models keep states depend on "
            "earlier requests; remove it"
        )
    cache = cache_of(config, name, limits)
    # A request is one step of its sequence, however many rows it has: the members split it, not the ensemble.
    rows = WHOLE if keeps_states else batching.max_batch_size
    batching = replace(batching, single_request_batches=True, max_batch_size=rows)
    queue = transport.attach(ServedModel(name, version, bound.signature, batching, cold=cache is not None))
    steps = tuple(
        BoundStep(
            *(step.model, member.signature, member.queue),
            *(member.keeps_states, stateful(step, member, transport), member_cache(member)),
            *(step.inputs, step.outputs),
        )
        for step, member in zip(scheme.steps, members, strict=True)
    )
    most = config.ensemble_scheduling.max_inflight_requests or MOST_UNDER_WAY
    plan = Plan(name, bound.inside, bound.reshapes, steps, most)
    statistics = ServedStatistics()
    full = complete(config, name, bound.signature, [])
    executor = EnsembleExecutor(plan, queue, transport.inbox(), statistics, name=f"{name}/{version}")
    for member in members:
        member.leases.acquire()
    executor.begin()
    member_versions = ", ".join(f"{member.name}/{member.version}" for member in members)
    log.info("ensemble %r version %d is ready with %s", name, version, member_versions)
    return ServedVersion(
        name=name,
        version=version,
        fingerprint="",
        model=None,
        signature=bound.signature,
        config=full,
        queue=queue,
        executors=(executor,),
        cache=cache,
        statistics=statistics,
        members=members,
    )


def member_of(step: Step, catalog: Catalog[ServedVersion], folder: Path) -> ServedVersion:
    """Return the version that a step names; raises ArtifactError if it is not ready."""
    try:
        member = catalog.find(step.model, step.route)
    except ServingError as error:
        raise ArtifactError(f"{folder}: step {step.model!r}: {error}") from error
    return member


def stateful(step: Step, member: ServedVersion, transport: Transport) -> Stateful | None:
    """Return how a step is computed if its member keeps sequence states, else None."""
    if member.plan is None:
        return None

    def host(position: SequencePosition) -> SequenceHost:
        found = member.host_of(position, step.route)
        assert found.plan is not None
        assert found.sequences is not None
        assert found.model is not None
        return SequenceHost(found.plan, found.sequences, found.model.signature, found.queue)

    return Stateful(member.plan, host, transport.inbox)


def member_cache(member: ServedVersion) -> MemberCache | None:
    """Return the response cache of a step's member, if it has one."""
    if member.cache is None:
        return None
    return MemberCache(member.version, member.signature, member.cache, member.statistics)


def members_fingerprint(config: pb.ModelConfig, catalog: Catalog[ServedVersion]) -> str:
    """Return a fingerprint that changes when an ensemble must be bound again; empty for other models."""
    found = []
    for step in config.ensemble_scheduling.step:
        try:
            member = catalog.find(step.model_name, str(step.model_version) if step.model_version > 0 else "")
        except ServingError as error:
            found.append(error.code.name)
        else:
            found.append(f"{member.name}/{member.version} {member.route}")
    return "\n".join(found)
