"""Selects versions by a version policy."""

from collections.abc import Collection
from dataclasses import dataclass

from kerve.inference import model_config_pb2 as pb

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """The versions to try in order, until `enough` of them are served; and requested but missing ones."""

    candidates: tuple[int, ...]
    enough: int
    missing: tuple[int, ...] = ()


def choose(policy: pb.ModelVersionPolicy, available: Collection[int]) -> Choice:
    """Apply a version policy; without one, select only the newest version, as in Triton."""
    newest_first = tuple(sorted(available, reverse=True))
    match policy.WhichOneof("policy_choice"):
        case "all":
            return Choice(newest_first, len(newest_first))
        case "specific":
            asked = sorted(set(policy.specific.versions), reverse=True)
            found = tuple(version for version in asked if version in available)
            return Choice(found, len(found), tuple(version for version in asked if version not in available))
        case _:
            return Choice(newest_first, max(1, policy.latest.num_versions))
