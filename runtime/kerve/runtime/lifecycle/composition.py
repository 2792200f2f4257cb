"""Which models are members of which ensembles."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.ensemble.scheme import members_of
from kerve.runtime.errors import ArtifactError
from kerve.runtime.repository import Source

__all__ = ["Composition", "in_order"]


@dataclass(frozen=True)
class Ensemble:
    """A model that is computed by other models."""

    source: Source
    members: tuple[str, ...]


class Composition:
    """The ensembles that should be served, whether they are ready or not.

    Methods are thread-safe: they iterate over an atomic copy of what other threads may change.
    """

    def __init__(self) -> None:
        self._ensembles: dict[str, Ensemble] = {}
        # Models that were loaded only as members of an ensemble.
        self.brought: set[str] = set()

    def add(self, source: Source, config: pb.ModelConfig) -> None:
        """Register a model if it is an ensemble; raises ArtifactError if it contains itself."""
        if not (members := tuple(members_of(config))):
            self._ensembles.pop(source.name, None)
            return
        self._ensembles[source.name] = Ensemble(source, members)
        if way := cycle(source.name, self._members()):
            raise ArtifactError(
                f"{source.folder}: ensemble_scheduling: a cycle: {' -> '.join(way)}; "
                "an ensemble cannot be part of itself"
            )

    def forget(self, name: str) -> tuple[str, ...]:
        """Forget a model; return the members that were loaded only because of it."""
        self.brought.discard(name)
        gone = self._ensembles.pop(name, None)
        needed = {member for members in self._members().values() for member in members}
        return tuple(member for member in gone.members if member in self.brought - needed) if gone else ()

    def sources(self) -> list[Source]:
        """Return the sources of the ensembles, members before the ensembles that contain them."""
        known = dict(self._ensembles)
        return [known[name].source for name in in_order(self._members()) if name in known]

    def _members(self) -> dict[str, tuple[str, ...]]:
        return {name: ensemble.members for name, ensemble in list(self._ensembles.items())}


def in_order(ensembles: Mapping[str, Iterable[str]]) -> list[str]:
    """Return ensembles, given with their members, in topological order: members first."""
    ordered: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in ensembles and name not in ordered and name not in above:
            for member in ensembles[name]:
                visit(member, (*above, name))
            ordered[name] = None

    for name in sorted(ensembles):
        visit(name, ())
    return list(ordered)


def cycle(name: str, ensembles: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the path from an ensemble through its members back to itself; empty if there is none."""
    seen: set[str] = set()

    def visit(at: str, way: tuple[str, ...]) -> tuple[str, ...]:
        for member in ensembles.get(at, ()):
            if member == name:
                return (*way, name)
            if member not in seen:
                seen.add(member)
                if found := visit(member, (*way, member)):
                    return found
        return ()

    return visit(name, (name,))
