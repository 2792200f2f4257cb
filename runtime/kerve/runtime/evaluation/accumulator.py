"""Accumulates rows in the state of the metrics, and computes results from the state."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np

from kerve.artifact.v1.manifest_pb2 import Evaluation, StateSpec
from kerve.runtime.artifact import Artifact
from kerve.runtime.datatypes import DATATYPES, Array
from kerve.runtime.devices.device_array import DeviceArray, all_at_host, at_host
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.placement import ON_CPU, DeviceConfig
from kerve.runtime.devices.sessions import open_session
from kerve.runtime.errors import ArtifactError, InvalidArgumentError
from kerve.runtime.evaluation.targets import Labelled
from kerve.runtime.session import Session

__all__ = ["Accumulator", "Metrics", "chosen", "identity"]

#: How two states are merged; the third argument is the initial state.
MERGES: Mapping[int, Callable[[Array, Array, Array], Array]] = {
    StateSpec.SUM: lambda one, other, begin: one + other - begin,
    StateSpec.MAXIMUM: lambda one, other, _: np.maximum(one, other),
    StateSpec.MINIMUM: lambda one, other, _: np.minimum(one, other),
}

#: Arrays by name, on the host or on the device where they were computed.
Values = Mapping[str, Array | DeviceArray]

#: Keras' default batch size.
USUAL_BATCH_SIZE = 32


class Metrics:
    """The losses and metrics of one version, loaded."""

    def __init__(self, artifact: Artifact, *, threads: int, place: DeviceConfig = ON_CPU) -> None:
        """`place`: the device of the model; outputs that stay there are accumulated there."""
        manifest = artifact.manifest
        if manifest is None or not manifest.HasField("evaluation"):
            why = (
                "" if manifest is None else "; ".join(each for each in manifest.warnings if "evaluat" in each)
            )
            raise InvalidArgumentError(
                f"version {artifact.path.name} of {artifact.name!r} has no loss or metrics"
                + (f" ({why})" if why else "")
                + "; compile it with --loss and --metric"
            )
        self.description: Evaluation = manifest.evaluation
        # Buffers are only useful for clients' batches; TF32 would make results less exact than verified.
        place = replace(place, cuda=replace(place.cuda, buffers=0, use_tf32=False))
        self._update = open_session(artifact.path / self.description.update, place, threads=threads)
        self._results = Session(artifact.path / self.description.results, threads=1)
        self._taken = {spec.name for spec in self._update.inputs}
        states = {each.input for each in self.description.state}
        if missing := states - self._taken:
            raise ArtifactError(
                f"{artifact.path}: {self.description.update} lacks the state {', '.join(sorted(missing))}"
            )

    @property
    def names(self) -> list[str]:
        """The names of the results, in the order of `evaluate`."""
        return [each.name for each in self.description.metrics]

    def require(self, wanted: Collection[str], version: str) -> None:
        """Raise InvalidArgumentError for an unknown metric."""
        for name in wanted:
            if name not in self.names:
                raise InvalidArgumentError(
                    f"metric {name!r} does not exist in version {version}; it has: {', '.join(self.names)}"
                )

    @property
    def wanted(self) -> list[str]:
        """The values that the model must compute: outputs, and their logits."""
        targets = self.description.targets
        values = [target.output for target in targets]
        return [*values, *(target.logits for target in targets if target.logits)]

    def initial(self) -> dict[str, Array]:
        """Return the state before the first row."""
        return {each.input: initial(each) for each in self.description.state}

    def fold(self, feeds: Values, state: Values) -> dict[str, Array | DeviceArray]:
        """Return the state after a step, on the device where it was computed."""
        specs, given = self.description.state, {**feeds, **state}
        outputs = [each.output for each in specs]
        after: Values
        if isinstance(self._update, LaneSession) and self._update.keeps:
            after = self._update.keep(given, outputs)
        else:
            after = self._update.run(all_at_host(given), outputs)
        return {each.input: after[each.output] for each in specs}

    def numbers(self, state: Values) -> dict[str, Array]:
        """Return the results of a state."""
        return self._results.run(all_at_host(state), self.names)

    @property
    def mergeable(self) -> bool:
        """Whether rows may be accumulated in separate states that are merged later."""
        description = self.description
        return not description.batch_dependent and all(each.merge in MERGES for each in description.state)

    def merge(self, one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, Array]:
        """Merge two states, both of which started from the initial one."""
        return {
            each.input: np.asarray(MERGES[each.merge](one[each.input], other[each.input], initial(each)))
            for each in self.description.state
        }

    def feeds(self, labelled: Labelled, computed: Values) -> dict[str, Array | DeviceArray]:
        """Return the inputs of a step, for rows and the model's outputs for them."""
        feeds: dict[str, Array | DeviceArray] = {
            name: labelled.inputs[source] for name, source in self.description.inputs.items()
        }
        for target in self.description.targets:
            predictions = computed[target.output]
            labels = labelled.labels[target.output]
            feeds[target.predictions_input] = predictions
            feeds[target.labels_input] = labels
            if target.logits:
                feeds[target.logits_input] = computed[target.logits]
            if target.weights_input:
                weights = labelled.weights.get(target.output, np.ones((1,), np.float32))
                shape = weighed(target, predictions.shape)
                feeds[target.weights_input] = broadcast(weights, shape, target.output)
        feeds.pop("", None)
        return feeds


def identity(artifact: Artifact) -> str:
    """Return a digest of an artifact's files, which distinguishes artifacts of the same name and version."""
    files = artifact.manifest.files if artifact.manifest else {}
    lines = (f"{info.sha256}  {name}\n" for name, info in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def initial(state: StateSpec) -> Array:
    """Return the initial value of a state variable."""
    shape = [dim.size for dim in state.spec.shape]
    dtype = DATATYPES[state.spec.datatype].dtype
    return np.frombuffer(state.initial, dtype).reshape(shape) if state.initial else np.zeros(shape, dtype)


def weighed(target: Evaluation.Target, predictions: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the weighted values (of the loss, for instance), given that of the predictions."""
    return tuple(
        dim.size if dim.WhichOneof("kind") == "size" else predictions[axis]
        for axis, dim in enumerate(target.weights.shape)
    )


def broadcast(weights: Array, shape: tuple[int, ...], output: str) -> Array:
    """Broadcast the weights to the shape of the weighted values."""
    try:
        grown = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
        return np.ascontiguousarray(np.broadcast_to(grown, shape))
    except ValueError as error:
        raise InvalidArgumentError(
            f"the weights of output {output!r} have shape {list(weights.shape)}; expected {list(shape)}, or "
            f"one for each row"
        ) from error


class Accumulator:
    """The state of the metrics of one version over one stream of rows."""

    def __init__(self, metrics: Metrics, batch_size: int = 0) -> None:
        """`batch_size`: rows per step, for results that depend on it, independent of the batches added."""
        self._metrics = metrics
        self._state: Values = metrics.initial()
        self._step = (batch_size or USUAL_BATCH_SIZE) if metrics.description.batch_dependent else 0
        self._waiting: dict[str, Array] = {}

    @property
    def state(self) -> Mapping[str, Array]:
        """The state, without rows of an incomplete step."""
        return all_at_host(self._state)

    def merge(self, state: Mapping[str, Array]) -> None:
        """Merge a state that was accumulated elsewhere."""
        self._state = self._metrics.merge(self.state, state)

    def add(self, feeds: Values) -> None:
        """Accumulate rows."""
        if not self._step:
            self._state = self._metrics.fold(feeds, self._state)
            return
        joined = {name: join(name, self._waiting.get(name), at_host(each)) for name, each in feeds.items()}
        rows, begin = len(next(iter(joined.values()))), 0
        while rows - begin >= self._step:
            part = {name: array[begin : begin + self._step] for name, array in joined.items()}
            self._state = self._metrics.fold(part, self._state)
            begin += self._step
        self._waiting = {name: array[begin:] for name, array in joined.items()}

    def numbers(self) -> dict[str, Array]:
        """Return the results of the rows so far; an incomplete step counts as the last one."""
        state = self._state
        if self._waiting and len(next(iter(self._waiting.values()))):
            state = self._metrics.fold(self._waiting, state)
        return self._metrics.numbers(state)


def chosen(numbers: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
    """Return the results in `wanted`; all if it is empty."""
    return {name: value for name, value in numbers.items() if not wanted or name in wanted}


def join(name: str, before: Array | None, after: Array) -> Array:
    """Concatenate the rows of both."""
    if before is None or not len(before):
        return after
    if before.shape[1:] != after.shape[1:]:
        raise InvalidArgumentError(
            f"{name}: rows of {list(after.shape[1:])} cannot follow {list(before.shape[1:])} within a "
            "step, and these metrics depend on how rows are grouped; pad all batches to one size"
        )
    return np.concatenate([before, after])
