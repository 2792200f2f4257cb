"""Reading and writing the files of an artifact; the same model produces the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from google.protobuf import json_format
from numpy.typing import NDArray

from kerve.artifact.v1.manifest_pb2 import (
    Dimension,
    FileInfo,
    Manifest,
    Signature,
    StateSpec,
    TensorSpec,
    Verification,
)
from kerve.compiler import serialization
from kerve.compiler.errors import LoadError
from kerve.compiler.lowering import StateVariable
from kerve.compiler.verification import Check, Dataset, VerificationResult, from_file, output_traits

__all__ = [
    "MODEL_FILE",
    "altered_files",
    "load_golden",
    "load_manifest",
    "load_model",
    "move_model",
    "save_apart",
    "save_golden",
    "save_manifest",
    "save_model",
    "signature_of",
    "state_of",
    "tensor_spec",
    "toolchain",
    "verification_of",
]

MODEL_FILE = "model.onnx"
_DATA_FILE = "model.onnx.data"
_GOLDEN_FILE = "golden.npz"
_MANIFEST_FILE = "manifest.json"
_SCHEMA = 1

#: Weights larger than this in total are stored in a separate file: protobuf messages are limited to 2 GiB,
#: and a file of weights can be memory-mapped instead of parsed.
_EXTERNAL_ABOVE_BYTES = 1 << 30
_EXTERNAL_TENSOR_BYTES = 1 << 10

_DATATYPES: dict[ir.DataType, str] = {
    ir.DataType.BOOL: "BOOL",
    ir.DataType.UINT8: "UINT8",
    ir.DataType.UINT16: "UINT16",
    ir.DataType.UINT32: "UINT32",
    ir.DataType.UINT64: "UINT64",
    ir.DataType.INT8: "INT8",
    ir.DataType.INT16: "INT16",
    ir.DataType.INT32: "INT32",
    ir.DataType.INT64: "INT64",
    ir.DataType.FLOAT16: "FP16",
    ir.DataType.BFLOAT16: "BF16",
    ir.DataType.FLOAT: "FP32",
    ir.DataType.DOUBLE: "FP64",
    ir.DataType.STRING: "BYTES",
}

_TOOLS = ("kerve", "keras", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "tf-keras", "tf2onnx")
_TENSORFLOWS = ("tensorflow", "tensorflow-cpu")


def save_model(model: ir.Model, folder: Path, name: str = MODEL_FILE) -> Path:
    """Write an ONNX file, with large weights in a separate file; returns its path."""
    path = folder / name
    weights = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if weights > _EXTERNAL_ABOVE_BYTES:
        ir.save(model, path, external_data=f"{name}.data", size_threshold_bytes=_EXTERNAL_TENSOR_BYTES)
    else:
        serialization.write(model, path)
    return path


def save_apart(model: ir.Model, folder: Path) -> Path:
    """Write an ONNX file with its weights always in a separate file, so it can be read without them."""
    folder.mkdir()
    path = folder / MODEL_FILE
    ir.save(model, path, external_data=_DATA_FILE, size_threshold_bytes=_EXTERNAL_TENSOR_BYTES)
    return path


def move_model(source: Path, folder: Path) -> None:
    """Move the files written by `save_model` to another folder, replacing those there."""
    for name in (_DATA_FILE, MODEL_FILE):
        (folder / name).unlink(missing_ok=True)
        if (source / name).exists():
            (source / name).replace(folder / name)


def load_model(path: Path) -> ir.Model:
    """Read a model written by `save_model`; raises `LoadError` if it is missing or not an ONNX model."""
    if not path.exists():
        raise LoadError(
            f"{path.parent} holds no {path.name}; expected the folder of one version, as REPOSITORY/NAME/1"
        )
    try:
        return ir.load(path)
    except Exception as error:  # onnx_ir propagates errors of protobuf and of the file system
        raise LoadError(f"{path} is not an ONNX model that can be read: {error}") from error


def load_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of an artifact; None if there is none, as in a repository of plain ONNX files."""
    file = folder / _MANIFEST_FILE
    if not file.exists():
        return None
    try:
        return json_format.Parse(file.read_text("utf-8"), Manifest(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise LoadError(f"{file} is not a manifest: {error}") from error


def altered_files(manifest: Manifest, folder: Path) -> list[str]:
    """Return the names of the files that are missing or whose hashes differ from the manifest's."""
    return sorted(
        name
        for name, info in manifest.files.items()
        if not (folder / name).is_file() or _file_info(folder / name).sha256 != info.sha256
    )


def load_golden(model: ir.Model, folder: Path) -> Dataset:
    """Read the inputs written by `save_golden`; raises `LoadError` if they are missing."""
    return replace(from_file(model, folder / _GOLDEN_FILE, prefix="input/"), origin="golden")


def save_golden(verified: VerificationResult, signature: Signature, folder: Path) -> None:
    """Write the inputs and the source's outputs that a server checks itself against."""
    random = {spec.name for spec in signature.outputs if spec.random}
    arrays = {f"input/{name}": array for name, array in verified.inputs.items()}
    arrays |= {f"output/{name}": array for name, array in verified.outputs.items() if name not in random}
    with zipfile.ZipFile(folder / _GOLDEN_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            entry = zipfile.ZipInfo(f"{name}.npy")  # its default date is constant: reproducible bytes
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, _npy(array))


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Add the hashes of the folder's files to the manifest and write `manifest.json`."""
    manifest.schema = _SCHEMA
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            manifest.files[file.relative_to(folder).as_posix()].CopyFrom(_file_info(file))
    fields = json_format.MessageToDict(manifest, preserving_proto_field_name=True)
    text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / _MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def signature_of(model: ir.Model) -> Signature:
    """Describe the inputs and outputs of a graph."""
    inputs = [tensor_spec(value) for value in model.graph.inputs]
    outputs = [tensor_spec(value) for value in model.graph.outputs]
    bases = output_traits(model)
    for spec in outputs:
        spec.random = bases[spec.name].drawn
    batched = bool(inputs) and all(
        spec.shape and spec.shape[0].symbol == "batch" for spec in (*inputs, *outputs)
    )
    return Signature(inputs=inputs, outputs=outputs, batched=batched)


def state_of(model: ir.Model, state: Iterable[StateVariable]) -> list[StateSpec]:
    """Describe the state variables that a caller must pass from one request to the next."""
    inputs = {value.name: value for value in model.graph.inputs}
    return [
        StateSpec(
            input=each.input,
            output=each.output,
            spec=tensor_spec(inputs[each.input]),
            initial=np.ascontiguousarray(each.initial).tobytes(),
        )
        for each in state
    ]


def verification_of(checks: Iterable[Check]) -> Verification:
    """Convert the checks for the manifest."""
    recorded = [
        Verification.Check(
            data=check.data,
            batch_size=check.batch_size,
            dimensions=dict(check.dimensions),
            output=check.output,
            rtol=check.rtol,
            atol=check.atol,
            by_distribution=check.drawn,
            **({} if check.drawn else _errors(check)),
        )
        for check in checks
    ]
    return Verification(checks=recorded)


def _errors(check: Check) -> dict[str, Any]:
    return {
        "max_abs_error": _rounded(check.max_abs_error),
        "mean_abs_error": _rounded(check.mean_abs_error),
        "max_rel_error": _rounded(check.max_rel_error),
        "nan_mismatches": check.nan_mismatches,
    }


def _rounded(error: float) -> float:
    return float(f"{error:.3g}")


def tensor_spec(value: ir.Value) -> TensorSpec:
    """Describe one input or output of a graph."""
    assert value.dtype is not None
    assert value.shape is not None
    return TensorSpec(
        name=str(value.name),
        datatype=_DATATYPES[value.dtype],
        shape=[_dimension(dim) for dim in value.shape],
    )


def _dimension(dim: int | ir.SymbolicDim) -> Dimension:
    if isinstance(dim, int):
        return Dimension(size=dim)
    return Dimension(symbol=str(dim.value)) if dim.value is not None else Dimension()


def toolchain() -> dict[str, str]:
    """Return the versions of the packages that a compile depends on, by distribution name."""
    versions = {}
    for tool in (*_TOOLS, *_TENSORFLOWS):
        try:
            versions["tensorflow" if tool in _TENSORFLOWS else tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _file_info(file: Path) -> FileInfo:
    with file.open("rb") as stream:
        return FileInfo(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=file.stat().st_size)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    plain = _utf8(array) if array.dtype == object else np.ascontiguousarray(array)
    np.lib.format.write_array(buffer, plain.reshape(array.shape), allow_pickle=False)
    return buffer.getvalue()


def _utf8(texts: NDArray[Any]) -> NDArray[np.bytes_]:
    return np.array(
        [each if isinstance(each, bytes) else str(each).encode() for each in texts.reshape(-1)], np.bytes_
    )
