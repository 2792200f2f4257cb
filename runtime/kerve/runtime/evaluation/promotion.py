"""Promotion: moves a label to a version if the version's evaluation meets the requirements."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.config import is_label
from kerve.runtime.errors import InvalidArgumentError, NotFoundError
from kerve.runtime.evaluation.history import History
from kerve.runtime.evaluation.requirements import Requirement, parse

__all__ = ["Labels", "promote"]


class Labels(Protocol):
    """The labels of versions."""

    def labels(self, name: str, /) -> Mapping[str, int]:
        """Return the versions of a model by label."""

    def promote(self, name: str, label: str, version: int, /) -> None:
        """Assign a label to a version that is ready."""


#: Returns the identity of a version's artifact, given the version number.
Artifacts = Callable[[str], str]


def promote(
    request: pb.PromoteRequest, labels: Labels, history: History, peer: str, artifacts: Artifacts
) -> pb.PromoteResponse:
    """Move the label if all requirements hold, and record the decision with its reasons.

    Metrics are taken from the newest evaluation of each version's current artifact. Raises
    InvalidArgumentError for an invalid label or requirement, the exception of `labels` for a version that is
    not ready any more, and OSError, without moving the label, if the decision cannot be recorded.
    """
    if not is_label(request.label):
        raise InvalidArgumentError(f"label: expected a name, not a number, got {request.label!r}")
    requirements = [parse(text) for text in request.requirements]
    checked = check(requirements, request, labels, history, artifacts)
    response = pb.PromoteResponse(promoted=all(each.holds for each in checked), requirements=checked)
    decision = history.decided(peer, request, response)
    if response.promoted:
        try:
            labels.promote(request.model, request.label, int(request.version))
        except Exception:
            history.not_moved(decision)
            raise
    return response


def check(
    requirements: Sequence[Requirement],
    request: pb.PromoteRequest,
    labels: Labels,
    history: History,
    artifacts: Artifacts,
) -> list[pb.PromoteResponse.Requirement]:
    """Return whether each requirement holds, with the reason."""

    def lookup(label: str, metric: str) -> float:
        version = request.version
        if label:
            known = labels.labels(request.model)
            if label not in known:
                raise NotFoundError(
                    f"label {label!r} stands for no version; known: {', '.join(known) or 'none'}"
                )
            version = str(known[label])
        for record in history.list(request.model, version, artifact=artifacts(version)):
            for each in record.results.metrics:
                if each.name == metric and len(each.values) == 1:
                    return float(each.values[0])
        raise NotFoundError(f"version {version} was never evaluated for {metric!r}; run kerve evaluate first")

    results = []
    for requirement in requirements:
        try:
            holds, reason = requirement.check(lookup)
        except NotFoundError as error:
            holds, reason = False, str(error)
        results.append(pb.PromoteResponse.Requirement(text=requirement.text, holds=holds, reason=reason))
    return results
