"""The evaluation of one version over one stream of labelled rows: outputs, metrics, latencies."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.device_array import DeviceArray, at_host
from kerve.runtime.evaluation.accumulator import Accumulator, Metrics, chosen
from kerve.runtime.evaluation.deferred import DeferredComputation, Evaluable
from kerve.runtime.evaluation.targets import Labelled, split
from kerve.runtime.signature import check_tensor

__all__ = ["BatchOutput", "PendingBatch", "Run"]


@dataclass(frozen=True)
class PendingBatch:
    """A batch that waits for the model."""

    labelled: Labelled
    turn: DeferredComputation


@dataclass(frozen=True)
class BatchOutput:
    """A batch and the model's outputs for it."""

    labelled: Labelled
    computed: Mapping[str, Array | DeviceArray]


@dataclass
class Run:
    """The evaluation of one version."""

    served: Evaluable
    metrics: Metrics
    batch_size: int = 0
    #: The position of its first row, for errors.
    first: int = 0
    #: Rows that have been computed.
    rows: int = 0
    #: The model's compute time for each batch, in seconds.
    latencies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._accumulator = Accumulator(self.metrics, self.batch_size)
        self._asked = self.first

    @property
    def version(self) -> str:
        """The version: the name of its folder."""
        return self.served.model.artifact.path.name

    def ask(self, arrays: Mapping[str, Array], datatypes: Mapping[str, str]) -> PendingBatch | None:
        """Enqueue a batch for the model; returns None for an empty batch.

        Raises InvalidArgumentError if the batch does not fit the model.
        """
        signature = self.served.model.signature
        labelled = split(arrays, signature, self.metrics.description.targets, self._asked)
        sizes: dict[str, tuple[int, str]] = {}
        for name, array in labelled.inputs.items():
            check_tensor(signature.input(name), datatypes[name], array.shape, sizes)
        if not labelled.rows:
            return None
        self._asked += labelled.rows
        return PendingBatch(labelled, DeferredComputation(self.served, labelled.inputs, self.metrics.wanted))

    def answer(self, asked: PendingBatch) -> BatchOutput:
        """Wait for the model's outputs, and add them to the metrics."""
        answered = self.wait(asked)
        self._accumulator.add(self.metrics.feeds(answered.labelled, answered.computed))
        return answered

    def wait(self, asked: PendingBatch) -> BatchOutput:
        """Wait for the model's outputs, without adding them to the metrics."""
        computed, seconds = asked.turn.wait()
        self.latencies.append(seconds)
        self.rows += asked.labelled.rows
        return BatchOutput(asked.labelled, computed)

    def outputs(self, answered: BatchOutput) -> dict[str, tuple[str, Array]]:
        """Return the evaluated outputs with their datatypes."""
        measured = {target.output for target in self.metrics.description.targets}
        return {
            spec.name: (spec.datatype, at_host(answered.computed[spec.name]))
            for spec in self.served.model.signature.outputs
            if spec.name in measured
        }

    @property
    def state(self) -> Mapping[str, Array]:
        """The state of the metrics."""
        return self._accumulator.state

    def numbers(self, wanted: Collection[str] = ()) -> dict[str, Array]:
        """Return the results in `wanted` (empty: all) of the rows so far."""
        return chosen(self._accumulator.numbers(), wanted)
