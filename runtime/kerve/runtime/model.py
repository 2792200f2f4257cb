"""One version of a model in memory: loaded, checked against its golden data, warmed up, ready to run."""

import functools
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import copy

import numpy as np

from kerve.inference.model_config_pb2 import ModelConfig
from kerve.runtime.artifact import USUAL_TOLERANCE, Artifact
from kerve.runtime.background import Background, Runner, run_inline
from kerve.runtime.config import Settings
from kerve.runtime.config.complete import refuse_unsupported, settle
from kerve.runtime.config.reshaping import Reshapes, with_scalars
from kerve.runtime.datatypes import BF16, DATATYPES, Array, bfloat16_to_float32
from kerve.runtime.devices.device import CPU, Device
from kerve.runtime.devices.device_array import DeviceArray
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.placement import ON_CPU, DeviceConfig
from kerve.runtime.devices.sessions import open_session
from kerve.runtime.devices.tensorrt import TensorRtSession
from kerve.runtime.errors import ArtifactError, Code, ResourceExhaustedError, ServingError
from kerve.runtime.operators import check_libraries
from kerve.runtime.session import MemoryPolicy, Session
from kerve.runtime.signature import Signature, TensorSpec, show_shape
from kerve.runtime.warmup import Sample, samples

__all__ = ["Model", "load", "signature_of_session"]

log = logging.getLogger(__name__)


# Warming up with larger batches is not worth the memory.
MOST_WARM_ROWS = 1024

# Default sizes to which batches are padded on a GPU: padding at most doubles the work.
USUAL_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Model:
    """A loaded model: takes and returns NumPy arrays."""

    def __init__(
        self,
        artifact: Artifact,
        session: Session,
        config: ModelConfig | None = None,
        *,
        place: DeviceConfig = ON_CPU,
        warm_rows: Collection[int] = (),
    ) -> None:
        """`warm_rows`: common batch sizes, in rows."""
        self.artifact = artifact
        self._place = place
        self._warm_rows = warm_rows
        signature = artifact.signature or signature_of_session(session)
        check_names(artifact, signature, session)
        folder = artifact.path.parent
        config = with_scalars(config or ModelConfig(), signature)
        signature = settle(signature, config, folder, session.replaceable)
        self._reshapes = Reshapes(config, folder, batched=signature.batched)
        self.signature = self._reshapes.seen(signature)
        self._session = session
        self._outputs = tuple(spec.name for spec in self.signature.outputs)

    @property
    def place(self) -> DeviceConfig:
        """The device that it runs on, with its configuration."""
        return self._place

    @property
    def device(self) -> Device:
        """The device that it runs on."""
        return self._place.device

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Give the calling thread its own buffers within the block, on devices that use them.

        The model is then verified and warmed up again with them; raises ArtifactError as `check_golden` does.
        """
        with self._session.lane(self._warm_rows if self.signature.batched else ()) as lane:
            if lane is not None:
                with lane.capturing():
                    self.check_golden()
                    self.warm_up()
            yield

    @property
    def hardware(self) -> str:
        """Short description of the hardware that it runs on."""
        return self._session.hardware

    def run(
        self, inputs: Mapping[str, Array], requested: Collection[str] | None = None
    ) -> Mapping[str, Array]:
        """Return the requested outputs (None: all), in the signature's order, followed by hidden values.

        `inputs` must fit the signature; this is not checked again. An empty batch gives empty outputs.
        """
        return self._reshapes.outward(self._run(self._reshapes.inward(inputs), requested))

    def _run(self, inputs: Mapping[str, Array], requested: Collection[str] | None = None) -> dict[str, Array]:
        """Like `run`, with the graph's own shapes."""
        outputs = self._wanted(requested)
        if self._is_empty(inputs):
            # Many operators reject an empty batch: take the output shapes from a run on one row of zeros.
            one_row = {name: zeros(array, (1, *array.shape[1:])) for name, array in inputs.items()}
            return {name: array[:0] for name, array in self._session.run(one_row, outputs).items()}
        return self._session.run(inputs, outputs)

    def keep(
        self, inputs: Mapping[str, Array], requested: Collection[str] | None = None
    ) -> Mapping[str, Array | DeviceArray]:
        """Like `run`, with the graph's own shapes; outputs stay on the device if it supports that."""
        session = self._session
        inputs = self._reshapes.inward(inputs)
        if isinstance(session, LaneSession) and session.keeps and not self._is_empty(inputs):
            return session.keep(inputs, self._wanted(requested))
        return self._run(inputs, requested)

    def _is_empty(self, inputs: Mapping[str, Array]) -> bool:
        return self.signature.batched and any(len(array) == 0 for array in inputs.values())

    def _wanted(self, requested: Collection[str] | None) -> list[str]:
        if requested is None:
            return list(self._outputs)
        return [name for name in (*self._outputs, *self.artifact.hidden) if name in requested]

    @property
    def engine(self) -> str | None:
        """State of TensorRT's engine: "building", "ready" or "failed"; None if TensorRT is not used."""
        return self._session.engine if isinstance(self._session, TensorRtSession) else None

    def improve(self) -> None:
        """Start building TensorRT's engine, if the model uses one; it is verified before it is used."""
        if not isinstance(self._session, TensorRtSession):
            return

        def prove(session: Session) -> None:
            other = copy(self)
            other._session = session
            other.check_golden()
            other.warm_up()

        self._session.improve(self._warm_rows if self.signature.batched else (), prove)

    def terminate(self) -> None:
        """Interrupt running computations; the model cannot be run any more."""
        self._session.terminate()

    def close(self) -> None:
        """Free the memory; the model cannot be run any more."""
        self._session.close()

    def check_golden(self, by: Runner = run_inline) -> bool:
        """Compare with the golden data; return whether there is any. `by` runs the computation.

        Raises ArtifactError if an output differs from the source model's by more than the proven tolerance.
        """
        golden = self.artifact.golden()
        if golden is None:
            return False
        random = self.artifact.random_outputs
        if missing := set(self._outputs) - golden.outputs.keys() - random:
            raise ArtifactError(
                f"{self.artifact.path}: the golden data lacks {', '.join(sorted(missing))}; compile again"
            )
        found = by(lambda: self._run(golden.inputs))
        for spec in self.signature.outputs:
            if spec.name in random:
                continue
            tolerance = self.artifact.tolerance(spec)
            if spec.datatype == "FP32" and self._place.rounds:
                tolerance = widest(tolerance, USUAL_TOLERANCE["FP16"])
            compare(
                self.artifact, spec, tolerance, expected=golden.outputs[spec.name], found=found[spec.name]
            )
        return True

    def warm_up(self, by: Runner = run_inline) -> None:
        """Run on zeros with each common batch size, so that no request pays for initialization.

        `by` runs the computation. Other dynamic dimensions, and the rows of a model that is not batched, are
        those of the golden data, or 1.
        """
        golden = self.artifact.golden()
        like = self._reshapes.outward(golden.inputs) if golden else {}
        # The largest first: the smaller ones reuse its memory.
        for count in sorted(self._warm_rows, reverse=True) if self.signature.batched else (None,):
            inputs = {
                spec.name: zeros_like(like[spec.name], count) if spec.name in like else zeros_for(spec, count)
                for spec in self.signature.inputs
                if not spec.optional
            }
            try:
                by(functools.partial(self.run, inputs))
            except ResourceExhaustedError:
                raise
            except ServingError as error:
                # It may need sizes greater than 1 in dynamic dimensions, or values other than 0.
                rows = "" if count is None else f"{count} rows of "
                # The message for clients of an INTERNAL error refers to this log: log the cause.
                why = error.__cause__ if error.code is Code.INTERNAL else error
                log.warning("%s: warm-up with %szeros failed: %s", self.artifact.path, rows, why)
                return

    def check_memory(self, executors: int) -> None:
        """Raise ArtifactError unless concurrent runs of all executors fit into the memory limit.

        Call it after verification and warm-up: a run is assumed to need as much as the runs before it.
        """
        if self._session.arena is None:
            return
        try:
            self._session.arena.check(executors)
        except ArtifactError as error:
            raise ArtifactError(f"{self.artifact.path}: {error}") from error

    def compute(self, sample: Sample, by: Runner = run_inline) -> None:
        """Run a warm-up sample of the configuration with `by`; raises ArtifactError if it fails."""
        try:
            for _ in range(sample.count):
                by(functools.partial(self.run, sample.inputs))
        except ServingError as error:
            raise ArtifactError(
                f"{self.artifact.path}: model_warmup {sample.name!r} cannot be computed: {error}"
            ) from error


def load(
    artifact: Artifact,
    *,
    threads: int,
    settings: Settings | None = None,
    place: DeviceConfig = ON_CPU,
    executors: int = 1,
    low_priority: bool = False,
) -> Model:
    """Load a version, verify that it computes here what it did when compiled, and warm it up.

    `executors`: threads that will run it; `low_priority`: load at low priority, because other models are
    serving meanwhile. Raises ArtifactError on failure.
    """
    settings = settings or Settings()
    refuse_unsupported(settings.config, artifact.path.parent)
    check_libraries(libraries_of(artifact, settings), artifact.path.parent)
    on_cpu = place.device == CPU
    background = Background(low_priority=low_priority)
    background.run(artifact.check_files)

    def build() -> Session:
        return open_session(
            artifact.model_file,
            place,
            threads=threads,
            hidden=artifact.hidden,
            memory=memory_policy(settings, on_cpu=on_cpu),
            precision=artifact.manifest.precision if artifact.manifest else "float32",
        )

    # A session with a single thread computes in the calling thread and starts none.
    run = background.run if threads == 1 else background.run_starting
    session = run(build) if on_cpu else build()
    sizes = warm_sizes(settings) if on_cpu else graph_sizes(settings)
    model = Model(artifact, session, settings.config, place=place, warm_rows=sizes)

    try:
        model.check_golden(background.run)
        if on_cpu:  # on other devices each executor warms up with its own buffers
            model.warm_up(background.run)
        for sample in samples(settings.config, model.signature, artifact.path.parent):
            model.compute(sample, background.run)
        model.check_memory(executors)
    except ResourceExhaustedError as error:
        raise ArtifactError(f"{artifact.path} cannot be warmed up: {error}") from error
    background.end()
    model.improve()
    return model


def libraries_of(artifact: Artifact, settings: Settings) -> list[str]:
    """Return the libraries of custom operators that the manifest or Triton's configuration names."""
    extensions = artifact.manifest.extensions if artifact.manifest else ()
    return [*settings.config.model_operations.op_library_filename, *(each.library for each in extensions)]


def memory_policy(settings: Settings, *, on_cpu: bool) -> MemoryPolicy:
    """Return the memory settings of `config.toml` or of the parameters of Triton's ONNX Runtime backend."""
    given = {key: value.string_value for key, value in settings.config.parameters.items()}
    shrink = settings.shrink_memory or "cpu:0" in given.get("memory.enable_memory_arena_shrinkage", "").split(
        ";"
    )
    arena, limit = given.get("enable_mem_arena") != "0", settings.memory_limit if on_cpu else 0
    if limit and not arena:
        raise ArtifactError(
            "memory_limit needs the arena, which enable_mem_arena = 0 disables; remove one of them"
        )
    return MemoryPolicy(arena=arena, shrink=shrink, limit=limit)


def warm_sizes(settings: Settings) -> set[int]:
    """Return the common batch sizes, in rows."""
    config = settings.config
    sizes = {1, *settings.batch_buckets, *config.dynamic_batching.preferred_batch_size, config.max_batch_size}
    return {size for size in sizes if 0 < size <= MOST_WARM_ROWS}


def graph_sizes(settings: Settings) -> set[int]:
    """Return the sizes to which batches are padded on a GPU, where graphs captured for them are replayed."""
    most = settings.config.max_batch_size or MOST_WARM_ROWS
    usual = {size for size in USUAL_BUCKETS if size <= most}
    return warm_sizes(settings) | (set() if settings.batch_buckets else usual)


def widest(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the larger rtol and the larger atol of two tolerances."""
    return max(one[0], other[0]), max(one[1], other[1])


def signature_of_session(session: Session) -> Signature:
    """Return the signature of a plain ONNX file; batched if axis 0 of all tensors has the same symbol."""
    first = {spec.shape[0] if spec.shape else None for spec in (*session.inputs, *session.outputs)}
    # Without inputs the number of rows is undefined.
    batched = bool(session.inputs) and len(first) == 1 and isinstance(next(iter(first)), str)
    return Signature(session.inputs, session.outputs, batched)


def check_names(artifact: Artifact, declared: Signature, session: Session) -> None:
    """Raise ArtifactError unless the graph has the inputs and outputs that the manifest declares."""
    for kind, specs, nodes in (
        ("input", declared.inputs, session.inputs),
        ("output", declared.outputs, session.outputs),
    ):
        expected = sorted((spec.name, spec.datatype) for spec in specs)
        found = sorted((node.name, node.datatype) for node in nodes)
        if expected != found:
            raise ArtifactError(
                f"{artifact.model_file} does not match its manifest: "
                f"expected the {kind}s {expected}, got {found}"
            )


def zeros_for(spec: TensorSpec, rows: int | None) -> Array:
    """Return zeros that fit a spec, with `rows` (None: 1) in axis 0 and 1 in other dynamic dimensions."""
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    if rows is not None and spec.shape and not isinstance(spec.shape[0], int):
        shape[0] = rows
    return zeros(np.empty((), DATATYPES[spec.datatype].dtype), tuple(shape))


def zeros_like(array: Array, rows: int | None) -> Array:
    """Return zeros like an array, but with `rows` rows (None: as many as the array)."""
    return zeros(array, array.shape if rows is None or not array.ndim else (rows, *array.shape[1:]))


def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Return zeros of the same dtype; the zero of BYTES is the empty string."""
    return np.full(shape, b"", like.dtype) if like.dtype.kind == "O" else np.zeros(shape, like.dtype)


def compare(
    artifact: Artifact, spec: TensorSpec, tolerance: tuple[float, float], *, expected: Array, found: Array
) -> None:
    """Raise ArtifactError unless every element is within the tolerance of its output.

    The absolute tolerance scales with the output's range, as at compile time, because rounding errors do.
    """
    where = f"{artifact.path}: output {spec.name!r}"
    if expected.shape != found.shape:
        raise ArtifactError(
            f"{where} has shape {show_shape(found.shape)} where the source model's has "
            f"{show_shape(expected.shape)}"
        )
    if spec.datatype == BF16.name:
        expected, found = bfloat16_to_float32(expected), bfloat16_to_float32(found)
    if expected.dtype.kind == "O":
        wrong = np.asarray(expected != found)
    else:
        rtol, atol = tolerance
        largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=1))
        wrong = ~np.isclose(found, expected, rtol=rtol, atol=atol * largest, equal_nan=True)
    if not wrong.any():
        return
    position = tuple(np.argwhere(wrong)[0].tolist())
    raise ArtifactError(
        f"{where} differs from the source model's output: {wrong.sum()} of {wrong.size} elements differ, "
        f"the first at {show_shape(position)}: expected {expected[position]}, got {found[position]}; "
        "the file was changed, or this machine computes the model differently"
    )
