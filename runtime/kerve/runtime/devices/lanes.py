"""Sessions on a GPU: each executor thread has its own lane, so that copies and computation overlap.

    thread 1   write, push | compute | pull, read
    thread 2                 write, push | compute | pull, read

Tensors that cannot be bound (strings, bfloat16, outputs whose sizes the inputs do not determine) and threads
without a lane use `Session.run` as on the CPU.
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

# The run option that selects a captured graph, and its value for none.
GRAPH_ID, NO_GRAPH = "gpu_graph_id", "-1"
# The run option that leaves synchronization with the device to the caller.
LAUNCH_ONLY = "disable_synchronize_execution_providers"

CPU_PROVIDER = "CPUExecutionProvider"
# ONNX Runtime's names of memory that the host can read.
HOST = {"Cpu", "CudaPinned"}


class LaneSession(Session):
    """A session whose `run` uses the calling thread's lane, if it has one."""

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
        """`buffers` creates the memory of a lane (None: no lanes); `graphs`: whether the providers capture
        CUDA graphs; `closed` is called after the session is closed.
        """
        with LOADING_LOCK.shared():
            super().__init__(model_file, threads=threads, hidden=hidden, memory=memory, providers=providers)
        #: Inputs that the graph reads on the host. If they were bound to another device, ONNX Runtime would
        #: copy them only once, on binding.
        self.at_host = frozenset(
            spec.name
            for spec, place in zip(self.inputs, self._session.get_input_memory_infos(), strict=True)
            if place.name in HOST
        )
        # Lanes have no buffers for these inputs, which are not always given.
        self._replaceable = frozenset(spec.name for spec in self.replaceable)
        # A value that the host reads during capture would become a constant of the captured graph.
        self.graphs = graphs and (not self.at_host or providers[0][0] == CPU_PROVIDER)
        self._buffers, self._closed = buffers, closed
        name, options = providers[0]
        self._place = ("cpu", 0) if name == CPU_PROVIDER else ("cuda", int(options["device_id"]))
        self._graph_ids = itertools.count(1)
        # One computation is launched at a time, since all share one stream.
        self._launching = threading.Lock()
        self._local = threading.local()
        self._options.add_run_config_entry(GRAPH_ID, NO_GRAPH)
        self._terminable = [self._options]
        self._plain, self._run = self._run, self._run_in_lane
        self._bindable = not {BF16.name, BYTES.name} & set(self._datatypes.values())

    @contextmanager
    def lane(self, batch_sizes: Collection[int] = ()) -> Iterator[Lane | None]:
        """Give the calling thread its own buffers within the block; yields None if they cannot be used."""
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
        """Whether outputs can stay on the device: strings and bfloat16 cannot be bound."""
        return self._bindable

    def keep(
        self, inputs: Mapping[str, Array | DeviceArray], outputs: Sequence[str]
    ) -> dict[str, DeviceArray]:
        """Compute the named outputs and leave them on the device; inputs may be there too.

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
        """Return options for runs that return once launched; with `graph`, for a new captured graph."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(GRAPH_ID, str(next(self._graph_ids)) if graph else NO_GRAPH)
        options.add_run_config_entry(LAUNCH_ONLY, "1")
        options.terminate = self._options.terminate
        self._terminable.append(options)
        return options

    def launch(self, bound: Bound, memory: Memory) -> None:
        """Compute the pushed inputs, after other threads' computations; later pulls wait for it."""
        with self._launching:
            memory.before_compute()
            self._session.run_with_iobinding(bound.binding, bound.options)
            memory.after_compute()

    def terminate(self) -> None:
        """Interrupt current runs before their next operator; the session cannot be run any more."""
        for options in list(self._terminable):
            options.terminate = True

    def close(self) -> None:
        """Release ONNX Runtime's session."""
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
                lane.refuse(inputs)  # the inputs are valid, so the binding was the cause
            return found


def value_of(array: Array) -> Any:
    """Return an array as an OrtValue on the host."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))
