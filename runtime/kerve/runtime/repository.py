"""Finds models and their versions, `<repository>/<model>/<version>/`, in one or more repositories."""

import logging
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerve.cli.text import printable
from kerve.runtime.config.reader import stamp
from kerve.runtime.config.settings import CONFIG_FILES
from kerve.runtime.errors import ArtifactError

__all__ = ["Repository", "Source", "fingerprint", "scan"]

log = logging.getLogger(__name__)

# Unicode categories of characters that control a terminal or start a new line.
CONTROLS = ("Cc", "Zl", "Zp")


@dataclass(frozen=True)
class Source:
    """The location of a model: its folder, and the folders of its versions."""

    name: str
    folder: Path
    versions: Mapping[int, Path]
    # Why the model cannot be served at all; empty if it can.
    problem: str = ""


class Repository:
    """A folder of models."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The folders that were already reported not to be models.
        self._strays: set[Path] = set()

    def models(self) -> list[str]:
        """Return the names of the models that have at least one version, sorted."""
        return sorted(name for name, source in self.sources().items() if source.versions)

    def versions(self, model: str) -> list[int]:
        """Return the versions of a model, ascending."""
        return versions_in(self.path / model)

    def folder(self, model: str, version: int) -> Path:
        """Return the folder of a version."""
        return self.path / model / str(version)

    def sources(self) -> dict[str, Source]:
        """Return the models by name: folders with at least one version or a configuration."""
        if not self.path.is_dir():
            raise ArtifactError(
                f"{self.path} is not a folder; expected a repository <model>/<version>/model.onnx"
            )
        found: dict[str, Source] = {}
        strays: dict[Path, str] = {}
        for folder in sorted(self.path.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            if problem := problem_of_name(folder.name):
                strays[folder] = problem
                continue
            try:
                versions = {version: folder / str(version) for version in versions_in(folder)}
                # A version that is still being written has a hidden name.
                visible = any(not each.name.startswith(".") for each in folder.iterdir())
            except OSError as error:
                found[folder.name] = Source(folder.name, folder, {}, f"{folder} cannot be read: {error}")
                continue
            if versions or any((folder / name).is_file() for name in CONFIG_FILES):
                found[folder.name] = Source(folder.name, folder, versions)
            elif visible:
                strays[folder] = (
                    f"it contains no version; expected {folder}/1/model.onnx, with a number without leading "
                    "zeros as the version"
                )
        self._warn_of_strays(strays)
        return found

    def _warn_of_strays(self, strays: Mapping[Path, str]) -> None:
        """Log once why a folder is not a model, since a user may expect it to be one."""
        for folder, why in strays.items():
            if folder not in self._strays:
                text = os.fsencode(folder).decode(errors="backslashreplace")  # may contain lone surrogates
                shown = printable(text)
                log.warning("%s is skipped: %s", shown, why)
        self._strays = {*strays}


def scan(repositories: Sequence[Repository]) -> dict[str, Source]:
    """Return the models of all repositories; a model that is in two of them gets a `problem`."""
    found: dict[str, Source] = {}
    for repository in repositories:
        for name, source in repository.sources().items():
            if name in found:
                problem = f"the model is in two repositories: {found[name].folder} and {source.folder}"
                found[name] = Source(name, found[name].folder, {}, problem)
            else:
                found[name] = source
    return found


def versions_in(folder: Path) -> list[int]:
    """Return the version numbers that are names of subfolders, ascending.

    Anything else, such as a partially written version under a temporary name, `01` or `latest`, is ignored.
    """
    return sorted(int(each.name) for each in folder.iterdir() if is_version(each.name) and each.is_dir())


def problem_of_name(name: str) -> str:
    """Return why a folder's name cannot be that of a model; empty if it can."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Python decodes bytes that are not UTF-8 to lone surrogates
        return "its name is not UTF-8, so clients cannot request it; rename it"
    if any(unicodedata.category(character) in CONTROLS for character in name):
        return "its name has control characters, which logs and terminals would interpret; rename it"
    return ""


def is_version(name: str) -> bool:
    """Return whether a folder's name is a version: decimal digits without a leading zero."""
    return name.isascii() and name.isdecimal() and not name.startswith("0") and len(name) < 19


def fingerprint(folder: Path) -> str:
    """Return a fingerprint of a folder's files: names, sizes and times, without reading their contents."""
    entries = []
    for parent, _, files in os.walk(folder):
        for name in files:
            file = os.path.join(parent, name)  # noqa: PTH118  this runs at every poll, and Path is slow
            entries.append(f"{file} {stamp(file)}")
    return "\n".join(sorted(entries))
