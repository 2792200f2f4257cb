"""NumPy interface to ONNX Runtime sessions, for every datatype of the protocol."""

import ctypes
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from kerve.runtime import operators
from kerve.runtime.arena import SHRINK, USE_ARENA, Arena, in_arena
from kerve.runtime.cpus import cpu_name
from kerve.runtime.datatypes import BF16, BY_ONNX, BYTES, DATATYPES, Array
from kerve.runtime.errors import (
    ArtifactError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
)
from kerve.runtime.onnx_file import count_operators
from kerve.runtime.ort_errors import ORT_ERRORS
from kerve.runtime.signature import TensorSpec, show_shape

if TYPE_CHECKING:
    from kerve.runtime.devices.lane import Lane

__all__ = ["RECORD", "Assignment", "MemoryPolicy", "Provider", "Session"]

# An execution provider of ONNX Runtime, and its options.
Provider: TypeAlias = tuple[str, Mapping[str, str]]


@dataclass(frozen=True)
class MemoryPolicy:
    """How a session manages the memory of its runs."""

    # Whether memory is kept for the next run. Otherwise each run allocates from the system.
    arena: bool = True
    # Whether free memory is released after each run, except for what the smallest runs need.
    shrink: bool = False
    # Maximum bytes including weights; 0: no limit. Requires the arena.
    limit: int = 0


# Message for accepted requests that are not computed.
GONE = "the model is shutting down here; try another server, or again later"

# Whether a session records which provider runs which node.
RECORD = "session.record_ep_graph_assignment_info"
# Microseconds that a worker thread of a session spins for its next part of a run: waking it takes longer than
# most operators that are not parallelized. With a longer time, idle threads take the CPU from the transport
# and from other models (docs/performance.md, Memory and threads). Before 1.26, it can only be on or off.
SPINNING = (
    ("session.intra_op.spin_duration_us", "10")
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 26)
    else ("session.intra_op.allow_spinning", "0")
)
# Operators whose kernels crash or read out of bounds if a tensor has no elements (ONNX Runtime 1.32).
NEED_ELEMENTS = {"GRU", "GroupNormalization", "InstanceNormalization", "LSTM"}
# Folder of the external weights of a model that is loaded from memory.
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class Assignment(NamedTuple):
    """A node, after ONNX Runtime's own optimizations, and the execution provider that runs it."""

    provider: str
    operator: str
    node: str


class Session:
    """A loaded ONNX model; `run` may be called from several threads and computes without the GIL."""

    def __init__(
        self,
        model_file: Path,
        *,
        threads: int,
        hidden: Sequence[str] = (),
        memory: MemoryPolicy | None = None,
        providers: Sequence[Provider] = (("CPUExecutionProvider", {}),),
        entries: Mapping[str, str] | None = None,
    ) -> None:
        """Load a file; `hidden` names intermediate values of its graph that can be requested like outputs.

        `providers`: ONNX Runtime's execution providers and their options, the preferred one first. `entries`:
        further session configuration entries. Raises ArtifactError if a provider is not available.
        """
        memory = memory or MemoryPolicy()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = memory.arena
        options.add_session_config_entry(*SPINNING)
        operators.register(options)
        # Fatal only: errors are raised here, and logged where their cause is known.
        options.log_severity_level = 4
        for key, value in (entries or {}).items():
            options.add_session_config_entry(key, value)
        model: str | bytes = str(model_file)
        if hidden:
            model = model_file.read_bytes() + more_outputs(hidden)
            options.add_session_config_entry(EXTERNAL_FOLDER, str(model_file.parent))

        def make() -> Any:
            return onnxruntime.InferenceSession(
                model, options, providers=list(providers), enable_fallback=False
            )

        #: The arena that it allocates from if its memory is limited.
        self.arena: Arena | None = None
        try:
            if memory.limit:
                options.add_session_config_entry(USE_ARENA, "1")
                self._session, self.arena = in_arena(memory.limit, make)
            else:
                self._session = make()
        except ArtifactError as error:
            raise ArtifactError(f"{model_file}: {error}") from error
        except ORT_ERRORS as error:
            raise ArtifactError(f"{model_file} cannot be loaded by ONNX Runtime: {error}") from error
        # ONNX Runtime silently drops a provider that cannot be loaded.
        if lost := {name for name, _ in providers} - set(self._session.get_providers()):
            raise ArtifactError(
                f"{model_file}: ONNX Runtime cannot use {', '.join(sorted(lost))} here; see its output, and "
                "`kerve doctor`"
            )
        #: The hardware: the CPU's model name, or the execution provider with its device.
        self.hardware = hardware(self._session)
        # Shared by all runs: its `terminate` flag ends current and later runs.
        self._options = onnxruntime.RunOptions()
        if memory.shrink and memory.arena:
            self._options.add_run_config_entry(SHRINK, "cpu:0")
        self.inputs = tuple(spec(each, model_file) for each in self._session.get_inputs())
        #: Constants of the graph that a request may override: initializers that are also inputs.
        self.replaceable = tuple(
            replace(spec(each, model_file), optional=True)
            for each in self._session.get_overridable_initializers()
            if each.type in BY_ONNX
        )
        every = tuple(spec(each, model_file) for each in self._session.get_outputs())
        self.outputs = tuple(each for each in every if each.name not in hidden)
        self._datatypes = {each.name: each.datatype for each in (*self.inputs, *self.replaceable, *every)}
        self._need_elements = sorted(NEED_ELEMENTS & count_operators(model_file).keys())
        # ONNX Runtime does not convert bfloat16 to NumPy: such models are run on OrtValues.
        self._run = self._run_values if BF16.name in self._datatypes.values() else self._run_arrays

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs.

        Raises InvalidArgumentError if the model cannot compute an input (such as an index out of range or a
        sequence without steps), ResourceExhaustedError if the run exceeds the memory limit,
        UnavailableError once terminated, and InternalError if the model fails otherwise.
        """
        if self._options.terminate:  # the request waited until after the drain timeout
            raise UnavailableError(GONE)
        self._refuse_empty(inputs)
        arena = self.arena
        try:
            return self._run_within(arena, inputs, outputs) if arena else self._run(inputs, outputs)
        except ORT_ERRORS as error:
            raise self._to_serving_error(error) from error

    def _refuse_empty(self, inputs: Mapping[str, Array]) -> None:
        if not self._need_elements:
            return
        for name, array in inputs.items():
            if 0 in array.shape:
                raise InvalidArgumentError(
                    f"input {name!r} has the shape {show_shape(array.shape)}: the model's "
                    f"{self._need_elements[0]} does not support tensors without elements"
                )

    def _to_serving_error(self, error: Exception) -> ServingError:
        """Return the error that is sent to the client for a failed run."""
        if isinstance(error, ort_errors.InvalidArgument):
            return InvalidArgumentError(f"the model cannot compute this input: {reason(error)}")
        if self._options.terminate:
            return UnavailableError(GONE)
        return InternalError("the model failed; see the server's log")

    def lane(self, batch_sizes: Collection[int] = ()) -> AbstractContextManager["Lane | None"]:  # noqa: ARG002
        """Give the calling thread its own buffers within the block, on devices that use them: not on the CPU.

        `batch_sizes`: the sizes to which batches may be padded.
        """
        return nullcontext()

    def assignments(self) -> list[Assignment]:
        """Return which provider runs which node, in no order; requires the entry RECORD to be "1"."""
        return [
            Assignment(part.ep_name, f"{node.domain}.{node.op_type}".lstrip("."), node.name)
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]

    def terminate(self) -> None:
        """Interrupt current runs before their next operator; the session cannot be run any more."""
        self._options.terminate = True

    def close(self) -> None:
        """Release ONNX Runtime's session, which frees its memory once no run is in progress."""
        self.terminate()
        self._session = self.arena = None

    def _run_within(
        self, arena: Arena, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Run within a memory limit; retry once after releasing memory that runs of other sizes have left."""
        try:
            return self._run(inputs, outputs)
        except ORT_ERRORS as error:
            if arena.lacks(error) is None:
                raise
        arena.shrink()
        try:
            return self._run(inputs, outputs)
        except ORT_ERRORS as error:
            if (needed := arena.lacks(error)) is None:
                raise
            raise ResourceExhaustedError(
                f"this request needs at least {needed} bytes, more than the model's memory_limit of "
                f"{arena.limit} bytes; send fewer or smaller rows at once, or raise the limit"
            ) from error

    def _run_arrays(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        given = {name: self._to_session(name, array) for name, array in inputs.items()}
        results = self._session.run(list(outputs), given, self._options)
        return {name: self._from_session(name, array) for name, array in zip(outputs, results, strict=True)}

    def _run_values(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        arrays = {
            name: np.asarray(self._to_session(name, array), order="C") for name, array in inputs.items()
        }
        given = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                array, DATATYPES[self._datatypes[name]].onnx_number
            )
            if self._datatypes[name] == BF16.name
            else onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for name, array in arrays.items()
        }
        results = self._session.run_with_ort_values(list(outputs), given, self._options)
        return {
            name: bits(value)
            if self._datatypes[name] == BF16.name
            else self._from_session(name, value.numpy())
            for name, value in zip(outputs, results, strict=True)
        }

    def _to_session(self, name: str, array: Array) -> Array:
        return decoded(name, array) if self._datatypes[name] == BYTES.name else array

    def _from_session(self, name: str, array: Array) -> Array:
        return encoded(array) if self._datatypes[name] == BYTES.name else array


def hardware(session: Any) -> str:
    """Describe the hardware of a session."""
    provider = session.get_providers()[0]
    if provider == "CPUExecutionProvider":
        return cpu_name()
    device = session.get_provider_options()[provider].get("device_id", "0")
    return f"{provider.removesuffix('ExecutionProvider')} device {device}, {cpu_name()}"


def more_outputs(names: Sequence[str]) -> bytes:
    """Return bytes that, appended to an ONNX model, make values of its graph outputs.

    Protobuf merges repeated occurrences of a message: ModelProto.graph (7) . GraphProto.output (12) .
    ValueInfoProto.name (1). ONNX Runtime infers the types.
    """
    return b"".join(field(7, field(12, field(1, name.encode()))) for name in names)


def field(number: int, contents: bytes) -> bytes:
    """Return a length-delimited field of protobuf."""
    length, size = len(contents), bytearray()
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + contents


def spec(node: Any, model_file: Path) -> TensorSpec:
    """Return the spec of a session's input or output."""
    if node.type not in BY_ONNX:
        raise ArtifactError(
            f"{model_file}: {node.name!r} has type {node.type}, which requests cannot contain; "
            f"expected one of {', '.join(BY_ONNX)}"
        )
    return TensorSpec(node.name, BY_ONNX[node.type].name, tuple(node.shape))


def reason(error: Exception) -> str:
    """Return ONNX Runtime's message without its prefixes."""
    return str(error).rpartition("Status Message: ")[2].rpartition("INVALID_ARGUMENT : ")[2].strip()


def decoded(name: str, array: Array) -> Array:
    """Return an object array of str, as ONNX Runtime expects for strings."""
    texts = np.empty(array.size, BYTES.dtype)
    for position, element in enumerate(array.ravel()):
        try:
            texts[position] = element.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"input {name!r}: expected UTF-8, as strings in ONNX are, "
                f"but element {position} is not: {error}"
            ) from error
    return texts.reshape(array.shape)


def encoded(array: Array) -> Array:
    """Return an object array of bytes for an object array of str."""
    elements = np.empty(array.size, BYTES.dtype)
    elements[:] = [text.encode() for text in array.ravel()]
    return elements.reshape(array.shape)


def bits(value: Any) -> Array:
    """Return a copy of the bits of a bfloat16 OrtValue in CPU memory."""
    contents = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(contents, BF16.dtype).reshape(value.shape())
