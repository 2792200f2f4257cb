"""A version of a model within a repository, accessed without a server."""

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

# Rows that a worker computes at a time, if the model sets no limit.
COMPUTED_ROWS = 32


@dataclass(frozen=True)
class Located:
    """The folder of a version, and its model's settings."""

    name: str
    folder: Path
    settings: Settings

    @property
    def version(self) -> str:
        """The version: the name of its folder."""
        return self.folder.name


def computing(located: Located) -> Evaluable:
    """Load and verify a version; raises ArtifactError on failure.

    It computes immediately, since there are no requests, and on one thread, since workers share the CPUs.
    """
    settings = located.settings
    artifact = read_artifact(located.folder, settings.config.default_model_filename or "model.onnx")
    model = load(artifact, threads=1, settings=settings)
    if not model.signature.batched:
        raise InvalidArgumentError(
            f"model {located.name!r} has no batch dimension, so its rows cannot be distributed; "
            "use it without --engine ray"
        )
    return Evaluable(model, at_once, settings.config.max_batch_size or COMPUTED_ROWS)


def at_once(compute: Callable[[], None]) -> bool:
    """Run the computation immediately."""
    compute()
    return True


def locate(repository: Path, name: str, version: str) -> Located:
    """Return a version by number or label; "": the server's default. Raises NotFoundError if not found."""
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
