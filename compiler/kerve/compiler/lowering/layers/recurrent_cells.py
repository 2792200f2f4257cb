"""Keras cells for which ONNX has one operator: LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.activations import keras2_hard_sigmoid
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import is_amended

__all__ = ["Cells", "native_cells"]


@dataclass(frozen=True)
class _Operator:
    op_type: str
    #: For each gate of ONNX, the index of Keras's gate.
    gates: tuple[int, ...]
    #: For each activation of ONNX, the attribute of Keras's cell.
    activations: tuple[str, ...]
    states: int


_OPERATORS: dict[type, _Operator] = {
    keras.layers.LSTMCell: _Operator(
        "LSTM", (0, 3, 1, 2), ("recurrent_activation", "activation", "activation"), states=2
    ),
    keras.layers.GRUCell: _Operator("GRU", (0, 1, 2), ("recurrent_activation", "activation"), states=1),
    keras.layers.SimpleRNNCell: _Operator("RNN", (0,), ("activation",), states=1),
}

#: ONNX's names of activations, with their alpha and beta. Softplus is omitted: in ONNX Runtime's
#: cells it overflows.
_ACTIVATIONS: dict[Callable[..., Any], tuple[str, float | None, float | None]] = {
    function: form
    for name, form in {
        "elu": ("Elu", 1.0, None),
        "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
        "leaky_relu": ("LeakyRelu", 0.2, None),
        "linear": ("Affine", 1.0, 0.0),
        "relu": ("Relu", None, None),
        "sigmoid": ("Sigmoid", None, None),
        "softsign": ("Softsign", None, None),
        "tanh": ("Tanh", None, None),
    }.items()
    for module in (keras.activations, keras.ops)
    if (function := getattr(module, name, None)) is not None
} | {keras2_hard_sigmoid: ("HardSigmoid", 0.2, 0.5)}

#: The default activations of the operators, for each direction.
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def native_cells(cell: Any) -> list[Any] | None:
    """Return the cells that are stacked in `cell`, or None if one of them has no ONNX operator."""
    stacked = type(cell) is keras.layers.StackedRNNCells and not is_amended(cell)
    cells = list(cell.cells) if stacked else [cell]
    return cells if all(_is_native(one) for one in cells) else None


def _is_native(cell: Any) -> bool:
    operator = _OPERATORS.get(type(cell))
    return (
        operator is not None
        and not is_amended(cell)
        and cell.compute_dtype != "float64"  # for which ONNX Runtime has no kernel
        and all(getattr(cell, name) in _ACTIVATIONS for name in operator.activations)
    )


@dataclass(frozen=True)
class Cells:
    """The native cells of one operator, one for each direction."""

    cells: Sequence[Any]

    @property
    def states(self) -> int:
        """Number of states of a cell."""
        return self._operator.states

    @property
    def units(self) -> int:
        """The size of a cell's output and of each of its states."""
        return int(self.cells[0].units)

    @property
    def dtype(self) -> str:
        """The compute dtype of the cells."""
        return str(self.cells[0].compute_dtype)

    @property
    def compatible(self) -> bool:
        """Whether one operator can run all of these cells."""
        return len({self._kind(cell) for cell in self.cells}) == 1

    def run(
        self,
        g: Lowering,
        inputs: ir.Value,
        lengths: ir.Value | None,
        states: Sequence[ir.Value | None],
        direction: str,
    ) -> Sequence[ir.Value]:
        """Add the operator.

        `inputs` are [time, batch, features], `lengths` [batch] counts the steps of each row, `states` are
        [directions, batch, units]. Returns the outputs [time, directions, batch, units], zero from a row's
        length on, and the final states, zero in rows of length zero.
        """
        write: Callable[..., Sequence[ir.Value]] = getattr(g.ops, self._operator.op_type)
        return write(
            inputs,
            self._weight(g, "kernel", lambda kernel: self._gates(kernel).T),
            self._weight(g, "recurrent_kernel", lambda kernel: self._gates(kernel).T),
            self._weight(g, "bias", self._bias) if self.cells[0].use_bias else None,
            lengths,
            *states,
            hidden_size=self.units,
            direction=direction,
            **self._attributes(),
            _outputs=1 + self.states,
        )

    @staticmethod
    def _kind(cell: Any) -> tuple[Any, ...]:
        return type(cell), cell.units, cell.compute_dtype, cell.use_bias, getattr(cell, "reset_after", None)

    @property
    def _operator(self) -> _Operator:
        return _OPERATORS[type(self.cells[0])]

    def _weight(self, g: Lowering, name: str, transform: Callable[[NDArray[Any]], NDArray[Any]]) -> ir.Value:
        """Stack the transformed variables of all cells."""
        first, *others = (getattr(cell, name) for cell in self.cells)
        role = self._operator.op_type + ("" if not others else f" with {others[0].path}")

        def stack(array: NDArray[Any]) -> NDArray[Any]:
            # `value` would be a narrower copy under mixed precision
            arrays = [array, *(keras.ops.convert_to_numpy(variable._value) for variable in others)]
            return np.stack([transform(one) for one in arrays])

        return g.weight(first, stack, role=role, dtype=self.dtype)

    def _gates(self, array: NDArray[Any]) -> NDArray[Any]:
        parts = np.split(array, len(self._operator.gates), axis=-1)
        return np.concatenate([parts[gate] for gate in self._operator.gates], axis=-1)

    def _bias(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the input bias followed by the recurrent bias, which only GRU has in Keras."""
        rows = self._gates(np.atleast_2d(array))
        return np.concatenate([rows, np.zeros_like(rows)])[:2].reshape(-1)

    def _attributes(self) -> dict[str, Any]:
        forms = [
            _ACTIVATIONS[getattr(cell, name)] for cell in self.cells for name in self._operator.activations
        ]
        attributes: dict[str, Any] = {}
        columns = zip(*forms, strict=True)
        names, alphas, betas = ([value for value in column if value is not None] for column in columns)
        if names != _DEFAULTS[self._operator.op_type] * len(self.cells):
            given = {"activations": names, "activation_alpha": alphas, "activation_beta": betas}
            attributes = {name: values for name, values in given.items() if values}
        if getattr(self.cells[0], "reset_after", False):
            attributes["linear_before_reset"] = 1
        return attributes
