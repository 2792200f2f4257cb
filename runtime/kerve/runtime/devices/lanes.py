"""Sessions on a GPU: each thread that computes has a lane of its own, so that copies and computation overlap.

    thread 1   write, push | compute | pull, read
    thread 2                 write, push | compute | pull, read

What cannot be bound (strings, bfloat16, outputs whose sizes the inputs do not tell) and whoever has no lane
is served by `Session.run` as on the CPU.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from kerve.runtime.datatypes import BF16, BYTES, Array
from kerve.runtime.devices.device_array import DeviceArray
from kerve.runtime.devices.lane import Bound, Lane
from kerve.runtime.devices.locks import DEVICE_LOCK, LOADING_LOCK, capturing
from kerve.runtime.devices.memory import Memory
from kerve.runtime.ort_errors import ORT_ERRORS
from kerve.runtime.session import MemoryPolicy, Provider, Session

__all__ = ["LaneSession"]

log = logging.getLogger(__name__)

# The run option that chooses among captured graphs, and the value of it that captures none.
GRAPH_ID, NO_GRAPH = "gpu_graph_id", "-1"
# The run option that leaves the wait for the device to whoever reads the outputs.
LAUNCH_ONLY = "disable_synchronize_execution_providers"

CPU_PROVIDER = "CPUExecutionProvider"
# What ONNX Runtime calls memory that the host reads.
HOST = {"Cpu", "CudaPinned"}


class LaneSession(Session):
    """A session whose `run` goes through the calling thread's lane, where it has one."""

    def __init__(
        self,
        model_file: Path,
        *,
        threads: int,
        hidden: Sequence[str] = (),
        providers: Sequence[Provider],
        buffers: Callable[[], Memory] | None,
        memory: MemoryPolicy | None = None,
        graphs: bool = False,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """`buffers` makes what a lane allocates from (None: there are no lanes); `graphs`: whether the
        providers capture CUDA graphs; `closed` is called once the session is gone.
        """
        with LOADING_LOCK.shared():
            super().__init__(model_file, threads=threads, hidden=hidden, memory=memory, providers=providers)
        #: Inputs that the graph reads at the host. What is bound to another place ONNX Runtime copies once,
        #: when it is bound, and never again.
        self.at_host = frozenset(
            spec.name
            for spec, place in zip(self.inputs, self._session.get_input_memory_infos(), strict=True)
            if place.name in HOST
        )
        # Lanes have buffers for what is always given.
        self._replaceable = frozenset(spec.name for spec in self.replaceable)
        # A value that the host reads while a graph is captured is part of the graph from then on.
        self.graphs = graphs and (not self.at_host or providers[0][0] == CPU_PROVIDER)
        self._buffers, self._closed = buffers, closed
        name, options = providers[0]
        self._place = ("cpu", 0) if name == CPU_PROVIDER else ("cuda", int(options["device_id"]))
        self._graph_ids = itertools.count(1)
        # One computation is launched at a time, since there is one stream for them.
        self._launching = threading.Lock()
        self._local = threading.local()
        self._options.add_run_config_entry(GRAPH_ID, NO_GRAPH)
        self._terminable = [self._options]
        self._plain, self._run = self._run, self._run_in_lane
        self._bindable = not {BF16.name, BYTES.name} & set(self._datatypes.values())

    @contextmanager
    def lane(self, batch_sizes: Collection[int] = ()) -> Iterator[Lane | None]:
        """Give the calling thread buffers of its own within the block; None where they cannot be used."""
        if self._buffers is None or not self._bindable:
            yield None
            return
        with DEVICE_LOCK.shared():
            memory = self._buffers()
        lane = self._local.lane = Lane(self, memory, batch_sizes)
        try:
            yield lane
        finally:
            self._local.lane = None
            with DEVICE_LOCK.shared():
                lane.close()

    @property
    def keeps(self) -> bool:
        """Whether what is computed can stay where it is: neither strings nor bfloat16 can be bound."""
        return self._bindable

    def keep(
        self, inputs: Mapping[str, Array | DeviceArray], outputs: Sequence[str]
    ) -> dict[str, DeviceArray]:
        """Compute the named outputs and leave them on the device; inputs may lie there, too.

        Raises as `run` does.
        """
        try:
            with DEVICE_LOCK.shared():
                binding = self.bind()
                for name, each in inputs.items():
                    value = each.value if isinstance(each, DeviceArray) else value_of(each)
                    binding.bind_ortvalue_input(name, value)
                for name in outputs:
                    binding.bind_output(name, *self._place)
                self._session.run_with_iobinding(binding, self._options)
                return dict(zip(outputs, map(DeviceArray, binding.get_outputs()), strict=True))
        except ORT_ERRORS as error:
            raise self._to_serving_error(error) from error

    def bind(self) -> Any:
        """Return a new binding of the graph, without tensors yet."""
        return self._session.io_binding()

    def run_options(self, *, graph: bool) -> Any:
        """Return options for runs that end once they are launched; with a graph of their own, or none."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(GRAPH_ID, str(next(self._graph_ids)) if graph else NO_GRAPH)
        options.add_run_config_entry(LAUNCH_ONLY, "1")
        options.terminate = self._options.terminate
        self._terminable.append(options)
        return options

    def launch(self, bound: Bound, memory: Memory) -> None:
        """Compute what was pushed, behind what other threads launched; what is pulled later waits for it."""
        with self._launching:
            memory.before_compute()
            self._session.run_with_iobinding(bound.binding, bound.options)
            memory.after_compute()

    def terminate(self) -> None:
        """End the runs under way before their next operator; nothing can be run any more."""
        for options in list(self._terminable):
            options.terminate = True

    def close(self) -> None:
        """Let ONNX Runtime's session go."""
        with DEVICE_LOCK.shared():
            super().close()
            self._closed()

    def _run_in_lane(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        lane: Lane | None = getattr(self._local, "lane", None)
        with capturing() if lane is not None and lane.captures else DEVICE_LOCK.shared():
            if lane is None or inputs.keys() & self._replaceable:
                return self._plain(inputs, outputs)
            if (found := lane.run(inputs, outputs)) is None:
                found = self._plain(inputs, outputs)
                lane.refuse(inputs)  # now that it is known that the inputs were not at fault
            return found


def value_of(array: Array) -> Any:
    """Return an array as ONNX Runtime's value, at the host."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))
