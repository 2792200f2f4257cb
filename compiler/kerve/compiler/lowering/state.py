"""Variables that a model changes when it is called: inputs and outputs of the graph, never constants.

Which variables these are is known only when the model's code assigns to them, and by then it may have read
them. So a lowering that meets a new one starts again, with that variable declared: from then on reading it
gives a symbol (at first the graph's input), and assigning to it replaces the symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.lowering import dtypes

__all__ = ["Restart", "State", "StateVariable", "distinct", "named_by_path"]


@dataclass(frozen=True)
class StateVariable:
    """One variable of the model that its call changes."""

    variable: keras.Variable
    #: Name of the graph's input that takes its value, and of the output that gives its next one.
    input: str
    output: str

    @property
    def initial(self) -> NDArray[Any]:
        """The value it has in the source model now."""
        return np.array(keras.ops.convert_to_numpy(self.variable))


class Restart(BaseException):
    """A variable turned out to be state; no handler of the author's code may take this for an error."""

    def __init__(self, variable: keras.Variable) -> None:
        super().__init__(variable.path)
        self.variable = variable


class State:
    """The state variables of one lowering, and the values they have at this point of the call."""

    def __init__(self, declared: Sequence[StateVariable]) -> None:
        self.variables = list(declared)
        self.inputs = [_input(each) for each in self.variables]
        self._values = {
            id(each.variable): value for each, value in zip(self.variables, self.inputs, strict=True)
        }

    def holds(self, variable: Any) -> bool:
        """Whether a variable is declared to be state."""
        return id(variable) in self._values

    def read(self, variable: keras.Variable) -> ir.Value:
        """Return the value that a variable has at this point; starts over if it is not declared."""
        if not self.holds(variable):
            raise Restart(variable)
        return self._values[id(variable)]

    def write(self, variable: keras.Variable, value: ir.Value) -> None:
        """Give a variable its next value; starts over if it is not declared."""
        self.read(variable)
        self._values[id(variable)] = value

    @property
    def values(self) -> dict[int, ir.Value]:
        """The values at this point, by the identity of the variables; assign to come back to it."""
        return dict(self._values)

    @values.setter
    def values(self, values: dict[int, ir.Value]) -> None:
        self._values = dict(values)

    @property
    def last(self) -> list[tuple[str, ir.Value]]:
        """The output's name and the value of each variable at this point, in the order of declaration."""
        return [(each.output, self.read(each.variable)) for each in self.variables]


def distinct(paths: Sequence[str]) -> list[str]:
    """Number paths that come again: both states of an LSTM layer are its `rnn_state` to Keras."""
    return [
        path if path not in paths[:index] else f"{path}_{paths[:index].count(path)}"
        for index, path in enumerate(paths)
    ]


def named_by_path(variables: Sequence[keras.Variable], model: str) -> list[StateVariable]:
    """Declare variables under the names that they have in a model."""
    paths = distinct([variable.path.removeprefix(f"{model}/") for variable in variables])
    return [
        StateVariable(variable, path, f"{path}/next") for variable, path in zip(variables, paths, strict=True)
    ]


def _input(state: StateVariable) -> ir.Value:
    dtype = dtypes.to_onnx(keras.backend.standardize_dtype(state.variable.dtype))
    return ir.val(state.input, dtype, ir.Shape(state.variable.shape))
