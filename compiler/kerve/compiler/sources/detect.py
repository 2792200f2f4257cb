"""Detection of a source's format from its content; file names are not relied on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import h5py

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import guards, unsupported_formats

__all__ = ["DetectedSource", "Kind", "detect_source"]

_ACCEPTED = "expected a .keras or .h5 file, a SavedModel folder, or weights together with --architecture FILE"
_ZIP_MAGIC = b"PK\x03\x04"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
#: The bytes read from the start of a file, enough for every signature.
_HEAD = 1024
#: The most names of an unknown file's contents in an error.
_MOST_NAMES = 3
_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


class Kind(Enum):
    """The kinds of source; the value is recorded in the manifest."""

    ARCHIVE = "keras"
    HDF5 = "h5"
    HDF5_WEIGHTS = "weights"
    CHECKPOINT = "checkpoint"
    SAVED_MODEL = "saved_model"
    ARCHITECTURE = "architecture"


@dataclass(frozen=True)
class DetectedSource:
    """A source on disk."""

    kind: Kind
    path: Path
    keras_version: str = ""
    #: The architecture, if the file contains one.
    config: Any = None
    #: The training configuration: loss and metrics.
    training: Any = None

    @property
    def is_keras_3(self) -> bool:
        """Whether Keras 3 wrote it."""
        return self.keras_version.split(".")[0].isdigit() and int(self.keras_version.split(".")[0]) >= 3


def detect_source(path: Path) -> DetectedSource:
    """Detect what is at `path`; raises `LoadError` if it is not a model, or damaged, or hostile."""
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        if _index_of(path).exists():
            return DetectedSource(Kind.CHECKPOINT, path)
        raise LoadError(f"{path} does not exist; {_ACCEPTED}")
    if not path.is_file():
        raise LoadError(f"{path} is not a regular file; {_ACCEPTED}")
    return _file(path)


def _folder(path: Path) -> DetectedSource:
    if any((path / name).is_file() for name in _SAVED_MODEL_FILES):
        return DetectedSource(Kind.SAVED_MODEL, path)
    if (path / "config.json").is_file() and (path / "metadata.json").is_file():
        return _unpacked_archive(path)
    if (path / "checkpoint").is_file():
        return DetectedSource(Kind.CHECKPOINT, _latest_checkpoint(path))
    indices = list(path.glob("*.index"))
    if len(indices) == 1:  # `tf.train.Checkpoint.write` does not write the `checkpoint` file
        return DetectedSource(Kind.CHECKPOINT, indices[0].with_suffix(""))
    versions = [each for each in path.iterdir() if each.name.isdecimal() and each.is_dir()]
    if len(versions) == 1:  # the layout of TensorFlow Serving
        return _folder(versions[0])
    _refuse(path, unsupported_formats.folder(path))
    raise LoadError(f"the folder {path} holds neither saved_model.pb nor a checkpoint; {_ACCEPTED}")


def _refuse(path: Path, what: str | None) -> None:
    if what is not None:
        raise LoadError(f"{path} is {what}")


def _unpacked_archive(path: Path) -> DetectedSource:
    """Detect a `.keras` archive stored as a folder, as on model hubs."""
    with guards.hdf5(path / "model.weights.h5"):
        config = _parsed(path / "config.json", (path / "config.json").read_bytes())
        metadata = _parsed(path / "metadata.json", (path / "metadata.json").read_bytes())
    return _with_metadata(path, config, metadata)


def _latest_checkpoint(folder: Path) -> Path:
    """Return the prefix that the file `checkpoint` points to, which must be in the same folder."""
    for line in (folder / "checkpoint").read_text("utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model_checkpoint_path":
            prefix = folder / Path(value.strip().strip('"')).name
            if _index_of(prefix).is_file():
                return prefix
    raise LoadError(
        f"{folder / 'checkpoint'} names no checkpoint in its folder; give the checkpoint's prefix"
    )


def _file(path: Path) -> DetectedSource:
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        raise LoadError(f"{path} is empty; {_ACCEPTED}")
    if head.startswith(_ZIP_MAGIC):
        return _archive(path)
    if head.startswith(_HDF5_MAGIC):
        return _hdf5(path)
    if path.suffix == ".index":
        return DetectedSource(Kind.CHECKPOINT, path.with_suffix(""))
    if path.name in _SAVED_MODEL_FILES:
        return DetectedSource(Kind.SAVED_MODEL, path.parent)
    _refuse(path, unsupported_formats.file(path, head))
    if head.lstrip()[:1] == b"{" or path.suffix in (".json", ".yaml", ".yml"):
        return DetectedSource(Kind.ARCHITECTURE, path)
    raise LoadError(f"{path} begins with {head[:8]!r}, as no Keras model does; {_ACCEPTED}")


def _archive(path: Path) -> DetectedSource:
    with guards.archive(path) as archive:
        members = set(archive.namelist())
        if not {"config.json", "metadata.json"} <= members:
            _refuse(path, unsupported_formats.archive(members))
            raise LoadError(
                f"{path} is not a Keras model: a zip file without config.json and metadata.json; {_ACCEPTED}"
            )
        config = _parsed(path / "config.json", guards.text(path, archive, "config.json"))
        metadata = _parsed(path / "metadata.json", guards.text(path, archive, "metadata.json"))
    return _with_metadata(path, config, metadata)


def _with_metadata(path: Path, config: Any, metadata: Any) -> DetectedSource:
    if not isinstance(config, dict) or "class_name" not in config:
        raise LoadError(f"{path / 'config.json'} has no class_name, so it does not describe a Keras model")
    version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    training = config.get("compile_config")
    return DetectedSource(Kind.ARCHIVE, path, version, config, training)


def _parsed(name: Path, content: bytes) -> Any:
    return _json(str(name), content, "archive")


def _json(what: str, content: str | bytes, whole: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{what} is not JSON ({error}); the {whole} is damaged") from error


def _hdf5(path: Path) -> DetectedSource:
    with guards.hdf5(path) as file:
        version = _attribute(file, "keras_version") or _attribute(file, "model_weights", "keras_version")
        texts = {name: _attribute(file, name) for name in ("model_config", "training_config")}
        if not texts["model_config"] and not _holds_weights(file):
            held = ", ".join(sorted(file)[:_MOST_NAMES]) or "nothing"
            raise LoadError(
                f"{path} is an HDF5 file that holds neither a Keras model nor weights of one, but {held}; "
                f"{_ACCEPTED}"
            )
        if not texts["model_config"]:
            return DetectedSource(Kind.HDF5_WEIGHTS, path, version)
    config, training = (
        _json(f"the {name} of {path}", text, "file") if text else None for name, text in texts.items()
    )
    return DetectedSource(Kind.HDF5, path, version, config, training)


def _holds_weights(file: h5py.File) -> bool:
    """Return whether there is a list of layers, as in Keras 1 and 2, or a `vars` group, as in Keras 3."""
    if "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs):
        return True
    return bool(file.visit(lambda name: True if name.rpartition("/")[2] == "vars" else None))


def _attribute(file: h5py.File, *names: str) -> str:
    *groups, name = names
    group: Any = file
    for key in groups:
        group = group.get(key)
        if group is None:
            return ""
    value = group.attrs.get(name, "")
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")
