"""One version over one stream of labelled rows: what it answers, how well, and how fast."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.evaluation.accumulator import Accumulator, Metrics
from kerve.runtime.evaluation.targets import Labelled, split
from kerve.runtime.model import Model
from kerve.runtime.signature import check_tensor

__all__ = ["Answered", "Run"]


@dataclass(frozen=True)
class Answered:
    """A batch, and what the model made of it."""

    labelled: Labelled
    computed: Mapping[str, Array]


@dataclass
class Run:
    """The evaluation of one version."""

    model: Model
    metrics: Metrics
    batch_size: int = 0
    rows: int = 0
    #: Seconds that the model took for each batch.
    latencies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._accumulator = Accumulator(self.metrics, self.batch_size)

    @property
    def version(self) -> str:
        """The version, by its folder."""
        return self.model.artifact.path.name

    def add(self, arrays: Mapping[str, Array], datatypes: Mapping[str, str]) -> Answered | None:
        """Let the model answer a batch, and measure the answers; InvalidArgumentError if it does not fit.

        Returns the answers; None to a batch without rows.
        """
        labelled = split(arrays, self.model.signature, self.metrics.description.targets, self.rows)
        self._check(labelled, datatypes)
        if not labelled.rows:
            return None
        begin = time.perf_counter()
        computed = self.model.run(labelled.inputs, self.metrics.wanted)
        self.latencies.append(time.perf_counter() - begin)
        self._accumulator.add(self.metrics.feeds(labelled, computed))
        self.rows += labelled.rows
        return Answered(labelled, computed)

    def numbers(self, chosen: Collection[str] = ()) -> dict[str, Array]:
        """Return the chosen numbers (none: all) of the rows so far."""
        return {
            name: value for name, value in self._accumulator.numbers().items() if not chosen or name in chosen
        }

    def require(self, chosen: Collection[str]) -> None:
        """Raise InvalidArgumentError for a metric that there is not."""
        for name in chosen:
            if name not in self.metrics.names:
                raise InvalidArgumentError(
                    f"metric {name!r} is not known of version {self.version}; it has: "
                    f"{', '.join(self.metrics.names)}"
                )

    def percentile(self, share: float) -> float:
        """Return the time within which so many of a hundred batches were answered."""
        return float(np.percentile(self.latencies, share)) if self.latencies else 0.0

    def _check(self, labelled: Labelled, datatypes: Mapping[str, str]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for name, array in labelled.inputs.items():
            check_tensor(self.model.signature.input(name), datatypes[name], array.shape, sizes)
