"""A version of a model within a repository, for those who read it without a server."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerve.runtime.artifact import read_artifact
from kerve.runtime.config import Settings, read_settings
from kerve.runtime.config.policy import choose
from kerve.runtime.errors import ArtifactError, InvalidArgumentError, NotFoundError
from kerve.runtime.evaluation.deferred import Evaluable
from kerve.runtime.model import load
from kerve.runtime.repository import Repository

__all__ = ["Located", "computing", "locate"]

# Rows that a worker computes at once, where the model sets no limit.
COMPUTED_ROWS = 32


@dataclass(frozen=True)
class Located:
    """The folder of a version, and how its model wants to be served."""

    name: str
    folder: Path
    settings: Settings

    @property
    def version(self) -> str:
        """The version, by its folder."""
        return self.folder.name


def computing(located: Located) -> Evaluable:
    """Return a version, loaded and proven to answer here as when it was compiled; ArtifactError otherwise.

    It computes at once, since no request waits, and on one thread: the workers of a node share its CPUs.
    """
    settings = located.settings
    artifact = read_artifact(located.folder, settings.config.default_model_filename or "model.onnx")
    model = load(artifact, threads=1, settings=settings)
    if not model.signature.batched:
        raise InvalidArgumentError(
            f"model {located.name!r} computes its rows as a whole, which workers cannot share; "
            "use it without --engine ray"
        )
    return Evaluable(model, at_once, settings.config.max_batch_size or COMPUTED_ROWS)


def at_once(compute: Callable[[], None]) -> bool:
    """Compute."""
    compute()
    return True


def locate(repository: Path, name: str, version: str) -> Located:
    """Return a version, by number or label; "": the one that a server would choose. NotFoundError."""
    sources = Repository(repository).sources()
    if name not in sources:
        raise NotFoundError(
            f"there is no model {name!r} in {repository}; available: {', '.join(sources) or 'no model'}"
        )
    source = sources[name]
    if source.problem:
        raise ArtifactError(source.problem)
    settings = read_settings(source.folder)
    candidates = choose(settings.config.version_policy, source.versions).candidates
    wanted = str(settings.labels.get(version, version)) or str(max(candidates, default=0))
    if wanted not in map(str, source.versions):
        available = ", ".join(map(str, sorted(source.versions))) or "none"
        raise NotFoundError(f"model {name!r} has no version {wanted}; available: {available}")
    return Located(name, source.versions[int(wanted)].resolve(), settings)
