"""The buffers of one thread that computes on a device.

A lane keeps, for each batch shape that it has seen, host memory, device memory, and the binding of both to
the graph's inputs and outputs. Batches are padded to given sizes, for which CUDA graphs can be captured: a
captured graph is replayed with fixed addresses and sizes.
"""

import logging
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from kerve.runtime.datatypes import DATATYPES, Array
from kerve.runtime.devices.memory import Buffer, Memory
from kerve.runtime.ort_errors import ORT_ERRORS
from kerve.runtime.signature import TensorSpec

__all__ = ["Bound", "Lane", "Launcher"]

log = logging.getLogger(__name__)

# Maximum number of shapes without a captured graph whose buffers a lane keeps, and of shapes that it
# remembers as unbindable.
MOST_LOOSE, MOST_REFUSED = 8, 256

Shape = tuple[int, ...]
# The shape of each input that is given.
Key = tuple[tuple[str, Shape], ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor in a lane: its buffer, and the host side of it as an array."""

    name: str
    buffer: Buffer
    array: Array


@dataclass
class Bound:
    """Buffers for one batch shape, bound to the graph."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    binding: Any
    options: Any
    # Whether a run replays a captured graph.
    captured: bool
    # Whether it has run successfully.
    proven: bool = False
    # Rows written by the last batch.
    written: int = 0


class Launcher(Protocol):
    """The session that computes for a lane; see `LaneSession`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    # Whether graphs can be captured.
    graphs: bool

    @property
    def at_host(self) -> Collection[str]:
        """Inputs that are read on the host, wherever the graph is computed."""

    def bind(self) -> Any:
        """Return a new binding of the graph, without tensors yet."""

    def run_options(self, *, graph: bool) -> Any:
        """Return options for a run; with `graph`, for the capture and replay of a new graph."""

    def launch(self, bound: Bound, memory: Memory) -> None:
        """Compute the pushed inputs; later pulls wait for the computation."""


class Lane:
    """The buffers of one thread; not thread-safe."""

    def __init__(self, launcher: Launcher, memory: Memory, batch_sizes: Collection[int] = ()) -> None:
        """`batch_sizes`: sizes to which batches are padded along axis 0 of all tensors; none: no padding."""
        self.captures = False
        self._launcher, self._memory = launcher, memory
        self._batch_sizes = sorted(batch_sizes)
        self._inputs = {spec.name: spec for spec in launcher.inputs}
        self._outputs = {spec.name: spec for spec in launcher.outputs}
        self._loose = launcher.run_options(graph=False)
        self._bound: OrderedDict[Key, Bound] = OrderedDict()
        self._refused: set[Key] = set()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Capture a graph for each new shape within the block, if graphs can be captured."""
        self.captures = self._launcher.graphs
        try:
            yield
        finally:
            self.captures = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array] | None:
        """Compute with the buffers; return None if that is not possible or fails.

        ONNX Runtime does not report whether the input caused the failure of a run on a binding; with
        `Session.run` it does.
        """
        rows, key = self._padded(inputs)
        if key in self._refused or not self._outputs.keys() >= set(outputs):
            return None
        for graph in (True, False) if self.captures else (False,):
            bound = self._bound.get(key) or self._bind(key, graph=graph)
            if bound is None:
                return None
            try:
                self._compute(bound, inputs, rows)
            except ORT_ERRORS as error:
                if bound.proven:
                    return None
                self._drop(key)
                log.info(
                    "%s for %s failed: %s", "a CUDA graph" if graph else "an I/O binding", dict(key), error
                )
                continue
            self._keep(key, bound)
            arrays = {tensor.name: tensor.array for tensor in bound.outputs}
            return {name: (arrays[name] if rows is None else arrays[name][:rows]).copy() for name in outputs}
        return None

    def refuse(self, inputs: Mapping[str, Array]) -> None:
        """Return None for batches of this shape from now on, unless a run of their buffers succeeded."""
        _, key = self._padded(inputs)
        if key in self._bound:
            return
        if len(self._refused) >= MOST_REFUSED:
            self._refused.clear()
        self._refused.add(key)

    def close(self) -> None:
        """Free all buffers."""
        self._memory.wait()
        for key in list(self._bound):
            self._drop(key)
        self._memory.close()

    def _padded(self, inputs: Mapping[str, Array]) -> tuple[int | None, Key]:
        """Return the number of rows (None without padding), and the padded shapes."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if not self._batch_sizes:
            return None, tuple(shapes.items())
        rows = next(iter(shapes.values()))[0]
        position = bisect_left(self._batch_sizes, rows)
        padded = self._batch_sizes[position] if position < len(self._batch_sizes) else rows
        return rows, tuple((name, (padded, *shape[1:])) for name, shape in shapes.items())

    def _compute(self, bound: Bound, inputs: Mapping[str, Array], rows: int | None) -> None:
        """Write, push, compute, pull, and wait."""
        for tensor in bound.inputs:
            if rows is None:
                tensor.array[...] = inputs[tensor.name]
            else:
                tensor.array[:rows] = inputs[tensor.name]
                tensor.array[rows : bound.written] = 0
            self._memory.push(tensor.buffer, tensor.array.nbytes)
        bound.written = rows or 0
        self._launcher.launch(bound, self._memory)
        for tensor in bound.outputs:
            self._memory.pull(tensor.buffer, tensor.array.nbytes)
        self._memory.wait()

    def _bind(self, key: Key, *, graph: bool) -> Bound | None:
        """Create buffers for a shape; return None if the inputs do not determine the size of an output."""
        shapes = output_shapes(key, self._inputs, self._outputs, batched=bool(self._batch_sizes))
        if shapes is None:
            return None
        binding = self._launcher.bind()
        tensors = self._tensors(
            [
                *((self._inputs[name], shape) for name, shape in key),
                *((self._outputs[name], shape) for name, shape in shapes.items()),
            ]
        )
        inputs, outputs = tensors[: len(key)], tensors[len(key) :]
        for bound_now, specs, bind in (
            (inputs, self._inputs, binding.bind_input),
            (outputs, self._outputs, binding.bind_output),
        ):
            for tensor in bound_now:
                number = DATATYPES[specs[tensor.name].datatype].onnx_number
                *place, address = self._address(tensor)
                bind(tensor.name, *place, number, list(tensor.array.shape), address)
        options = self._launcher.run_options(graph=True) if graph else self._loose
        bound = self._bound[key] = Bound(inputs, outputs, binding, options, graph)
        return bound

    def _address(self, tensor: Tensor) -> tuple[str, int, int]:
        """Return device type, device id and address of the side of a tensor that is bound to the graph."""
        if self._memory.device_type != "cpu" and tensor.name in self._launcher.at_host:
            return "cpu", 0, tensor.buffer.host.ctypes.data
        return self._memory.device_type, self._memory.device_id, tensor.buffer.address

    def _tensors(self, wanted: Iterable[tuple[TensorSpec, Shape]]) -> tuple[Tensor, ...]:
        """Allocate all tensors; if memory does not suffice, free those already allocated."""
        made: list[Tensor] = []
        try:
            for spec, shape in wanted:
                made.append(self._tensor(spec, shape))
        except Exception:
            for tensor in made:
                self._memory.free(tensor.buffer)
            raise
        return tuple(made)

    def _tensor(self, spec: TensorSpec, shape: Shape) -> Tensor:
        dtype = DATATYPES[spec.datatype].dtype
        buffer = self._memory.allocate(prod(shape) * dtype.itemsize)
        return Tensor(spec.name, buffer, buffer.host.view(dtype).reshape(shape))

    def _keep(self, key: Key, bound: Bound) -> None:
        """Keep the buffers just used; of those without captured graphs, only the most recent ones."""
        bound.proven = True
        self._bound.move_to_end(key)
        loose = [key for key, each in self._bound.items() if not each.captured]
        for old in loose[:-MOST_LOOSE]:
            self._drop(old)

    def _drop(self, key: Key) -> None:
        bound = self._bound.pop(key)
        for tensor in (*bound.inputs, *bound.outputs):
            self._memory.free(tensor.buffer)


def output_shapes(
    key: Key, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], *, batched: bool
) -> dict[str, Shape] | None:
    """Derive the shapes of the outputs from those of the inputs; return None if they are not determined."""
    sizes: dict[object, int] = {}
    for name, shape in key:
        sizes.update(zip(inputs[name].shape, shape, strict=True))
    sizes = {symbol: size for symbol, size in sizes.items() if isinstance(symbol, str)}
    found: dict[str, Shape] = {}
    for name, spec in outputs.items():
        known = [each if isinstance(each, int) else sizes.get(each) for each in spec.shape]
        if batched and known:
            known[0] = key[0][1][0]
        shape = tuple(size for size in known if size is not None)
        if len(shape) != len(known):
            return None
        found[name] = shape
    return found
