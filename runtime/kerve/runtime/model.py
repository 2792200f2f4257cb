"""One version of a model in memory: loaded, checked against its golden data, warmed, ready to run."""

import logging
from collections.abc import Collection, Mapping

import numpy as np

from kerve.runtime.artifact import Artifact
from kerve.runtime.datatypes import BF16, DATATYPES, Array, bfloat16_to_float32
from kerve.runtime.errors import ArtifactError, ServingError
from kerve.runtime.session import Session
from kerve.runtime.signature import Signature, TensorSpec, show_shape

__all__ = ["Model", "load", "signature_of_session"]

log = logging.getLogger(__name__)


class Model:
    """A model that runs: NumPy in, NumPy out."""

    def __init__(self, artifact: Artifact, session: Session) -> None:
        self.artifact = artifact
        self.signature = artifact.signature or signature_of_session(session)
        check_names(artifact, self.signature, session)
        self._session = session
        self._outputs = tuple(spec.name for spec in self.signature.outputs)

    def run(self, inputs: Mapping[str, Array], requested: Collection[str] | None = None) -> dict[str, Array]:
        """Return the requested outputs (None: all), in the signature's order.

        `inputs` fit the signature; this is not checked again. A batch without rows gives outputs without
        rows.
        """
        outputs = [name for name in self._outputs if requested is None or name in requested]
        if self.signature.batched and any(len(array) == 0 for array in inputs.values()):
            # Many operators refuse an empty batch: the shapes are those of one row of zeros.
            one_row = {name: zeros(array, (1, *array.shape[1:])) for name, array in inputs.items()}
            return {name: array[:0] for name, array in self._session.run(one_row, outputs).items()}
        return self._session.run(inputs, outputs)

    def terminate(self) -> None:
        """End what is being computed; nothing can be run any more."""
        self._session.terminate()

    def check_golden(self) -> bool:
        """Compare with the golden data; return whether there is any.

        Raises ArtifactError when an output is further from the source model's than it was proven to be.
        """
        golden = self.artifact.golden()
        if golden is None:
            return False
        random = self.artifact.random_outputs
        if missing := set(self._outputs) - golden.outputs.keys() - random:
            raise ArtifactError(
                f"{self.artifact.path}: the golden data lacks {', '.join(sorted(missing))}; compile again"
            )
        found = self.run(golden.inputs)
        for spec in self.signature.outputs:
            if spec.name in random:
                continue
            compare(self.artifact, spec, expected=golden.outputs[spec.name], found=found[spec.name])
        return True

    def warm_up(self) -> None:
        """Run on zeros with every free dimension 1, so that the first request does not pay for set-up."""
        inputs = {spec.name: zeros_for(spec) for spec in self.signature.inputs if not spec.optional}
        try:
            self.run(inputs)
        except ServingError as error:
            # A model without golden data may need more than a 1 in a free dimension, or other values than 0.
            log.warning("%s: warm-up with zeros failed: %s", self.artifact.path, error)


def load(artifact: Artifact, *, threads: int) -> Model:
    """Load a version and prove that it answers here as when it was compiled; ArtifactError otherwise."""
    artifact.check_files()
    model = Model(artifact, Session(artifact.model_file, threads=threads))
    if not model.check_golden():
        model.warm_up()
    return model


def signature_of_session(session: Session) -> Signature:
    """Return the signature of a bare ONNX file; it is batched when all share the symbol on axis 0."""
    first = {spec.shape[0] if spec.shape else None for spec in (*session.inputs, *session.outputs)}
    batched = len(first) == 1 and isinstance(next(iter(first)), str)
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
                f"{artifact.model_file} does not belong to its manifest: "
                f"expected the {kind}s {expected}, got {found}"
            )


def zeros_for(spec: TensorSpec) -> Array:
    """Return zeros that fit a spec, with every free dimension 1."""
    shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
    return zeros(np.empty((), DATATYPES[spec.datatype].dtype), shape)


def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Return zeros of the same dtype; the zero of BYTES is the empty string."""
    return np.full(shape, b"", like.dtype) if like.dtype.kind == "O" else np.zeros(shape, like.dtype)


def compare(artifact: Artifact, spec: TensorSpec, *, expected: Array, found: Array) -> None:
    """Raise ArtifactError unless every element is within the tolerance of its output."""
    where = f"{artifact.path}: output {spec.name!r}"
    if expected.shape != found.shape:
        raise ArtifactError(
            f"{where} has shape {show_shape(found.shape)} where the source model gave "
            f"{show_shape(expected.shape)}"
        )
    if spec.datatype == BF16.name:
        expected, found = bfloat16_to_float32(expected), bfloat16_to_float32(found)
    if expected.dtype.kind == "O":
        wrong = np.asarray(expected != found)
    else:
        rtol, atol = artifact.tolerance(spec)
        wrong = ~np.isclose(found, expected, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return
    position = tuple(np.argwhere(wrong)[0].tolist())
    raise ArtifactError(
        f"{where} is not what the source model gave: {wrong.sum()} of {wrong.size} elements differ, "
        f"the first at {show_shape(position)}: expected {expected[position]}, got {found[position]}; "
        "the file was changed, or this machine computes the model differently"
    )
