"""File formats that are mistaken for Keras models, and what to do with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["archive", "file", "folder"]

_MOST_NAMES = 3
_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_FROM_TENSORFLOW_1 = (
    "load it with TensorFlow, and save it with tf.compat.v1.saved_model.simple_save, which records its "
    "inputs and outputs"
)
_OF_JAVASCRIPT = (
    "a model of TensorFlow.js; convert it with tensorflowjs_converter --input_format=tfjs_layers_model "
    "--output_format=keras"
)

#: Patterns of the first bytes, what such files are, and what to do.
_BY_CONTENT: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(rb"....TFL3", re.DOTALL),
        "a TensorFlow Lite model; give the Keras model that it was converted from",
    ),
    (re.compile(rb"\x93NUMPY"), "a NumPy array; give the model that it belongs to"),
    (
        re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|.{257}ustar", re.DOTALL),
        "a compressed file or an archive; unpack it, and give its content",
    ),
    (
        re.compile(rb"\x80[\x02-\x05]|\(dp0\n|ccopy_reg\n"),
        "a pickle, which is never loaded, since it is code; load it where it was written, and save the model "
        "with model.save('model.keras')",
    ),
    (
        re.compile(rb"version https://git-lfs"),
        "a pointer of Git LFS; fetch the file itself with git lfs pull",
    ),
    (re.compile(rb"\s*<(!DOCTYPE|html)", re.IGNORECASE), "a web page; download the file itself"),
    (re.compile(rb"\s*\{.*\"(modelTopology|weightsManifest)\"", re.DOTALL), _OF_JAVASCRIPT),
)

#: The same by file name, for formats not recognizable by content.
_BY_NAME: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\.pb(txt)?$"), f"a TensorFlow graph, not a SavedModel; {_FROM_TENSORFLOW_1}"),
    (re.compile(r"\.meta$"), f"the graph of a TensorFlow 1 checkpoint; {_FROM_TENSORFLOW_1}"),
    (
        re.compile(r"\.data-\d+-of-\d+$"),
        "a part of a checkpoint; give the path up to its last dot, and the architecture with "
        "--architecture FILE",
    ),
    (re.compile(r"\.onnx$"), "already an ONNX model; give the Keras model that it was converted from"),
    (re.compile(r"\.(pt|pth|safetensors)$"), "not a Keras file; build the model, and load its weights there"),
    (re.compile(r"\.py$"), "Python code; build the model there, and give it to kerve.compiler.compile_model"),
)  # fmt: skip

#: The same by the names of members of a zip file.
_BY_MEMBER: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(^|/)saved_model\.pb(txt)?$"), "a packed SavedModel; unpack it, and give the folder"),
    (
        re.compile(r"\.(keras|h5|hdf5)$"),
        "a zip file that contains a model; unpack it, and give the file in it",
    ),
    (re.compile(r"\.npy$"), "a file of NumPy arrays (.npz); give the model that they belong to"),
    (re.compile(r"(^|/)data\.pkl$"), "a PyTorch model; build it in Keras, and load its weights there"),
)


def file(path: Path, head: bytes) -> str | None:
    """Return what a file is and what to do, or None if unknown; `head` is the start of its content."""
    by_content = next((says for pattern, says in _BY_CONTENT if pattern.match(head)), None)
    return by_content or next((says for pattern, says in _BY_NAME if pattern.search(path.name)), None)


def archive(members: Iterable[str]) -> str | None:
    """Return what a zip file is and what to do, or None if unknown."""
    names = list(members)
    return next(
        (says for pattern, says in _BY_MEMBER if any(pattern.search(name) for name in names)),
        None,
    )


def folder(path: Path) -> str | None:
    """Return what a folder is and what to do, or None if unknown."""
    if (path / "oracle.json").is_file():
        return (
            "a project of Keras Tuner, whose trials have no architecture; give the file that "
            "tuner.get_best_models()[0].save('model.keras') writes"
        )
    if (path / "model.json").is_file():
        return _OF_JAVASCRIPT
    found = [each for each in sorted(path.iterdir()) if _is_model(each)]
    names = ", ".join(str(each) for each in found[:_MOST_NAMES])
    return f"a folder that contains models; give one of them: {names}" if found else None


def _is_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in (*_SAVED_MODEL_FILES, "metadata.json"))
    return path.suffix in (".keras", ".h5", ".hdf5")
