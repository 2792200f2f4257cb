"""Finds models and their versions, `<repository>/<model>/<version>/`."""

from pathlib import Path

from kerve.runtime.errors import ArtifactError

__all__ = ["Repository"]


class Repository:
    """A folder of models."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def models(self) -> list[str]:
        """Return the names of the models that have at least one version, sorted."""
        if not self.path.is_dir():
            raise ArtifactError(
                f"{self.path} is not a folder; expected a repository <model>/<version>/model.onnx"
            )
        return sorted(
            folder.name for folder in self.path.iterdir() if folder.is_dir() and versions_in(folder)
        )

    def versions(self, model: str) -> list[int]:
        """Return the versions of a model, ascending."""
        return versions_in(self.path / model)

    def folder(self, model: str, version: int) -> Path:
        """Return where a version stands."""
        return self.path / model / str(version)


def versions_in(folder: Path) -> list[int]:
    """Return the numbers that name a folder of their own, ascending.

    Anything else, such as a half-written version under a temporary name, `01` or `latest`, is not a version.
    """
    return sorted(int(each.name) for each in folder.iterdir() if is_version(each.name) and each.is_dir())


def is_version(name: str) -> bool:
    """Return whether a folder's name is a version: decimal digits without a leading zero."""
    return name.isascii() and name.isdecimal() and not name.startswith("0")
