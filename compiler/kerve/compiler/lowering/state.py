"""Variables that a model assigns when it is called: inputs and outputs of the graph, never constants.

Such a variable is known only when the model's code assigns it, and may have been read before. So lowering
restarts at each new one, with that variable declared: from then on reading it returns a symbol (at first the
graph's input), and assigning it replaces the symbol.

A weight that the call itself masks (`kernel.assign(kernel * mask)`) is not state: the assigned value does not
depend on the inputs and is the same in each call. It has that value during lowering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import keras
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.symbol import symbols_in

__all__ = ["Restart", "State", "StateVariable", "VariableOverrides", "distinct", "named_by_path"]


@dataclass(frozen=True)
class StateVariable:
    """One variable, of Keras or TensorFlow, that the model's call assigns."""

    variable: Any
    #: Name of the graph's input for its value, and of the output for its next value.
    input: str
    output: str

    @property
    def initial(self) -> NDArray[Any]:
        """Its current value in the source model."""
        return np.array(keras.ops.convert_to_numpy(self.variable))


class Restart(BaseException):
    """Raised if a variable turns out to be state; a BaseException, so that user code does not catch it.

    With a `value`: the variable is assigned that value, independently of the inputs.
    """

    def __init__(self, variable: Any, value: NDArray[Any] | None = None) -> None:
        super().__init__(_path(variable))
        self.variable = variable
        self.value = value


class VariableOverrides:
    """Variables that the call assigns input-independent values, which they keep until the context ends."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[keras.Variable, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for variable, value in self._before.values():
            variable.assign(value)

    def __contains__(self, variable: keras.Variable) -> bool:
        return id(variable) in self._before

    def give(self, variable: keras.Variable, value: NDArray[Any]) -> None:
        """Set the value of a variable."""
        self._before[id(variable)] = variable, keras.ops.convert_to_numpy(variable)
        variable.assign(value)


class State:
    """The state variables of one lowering, and their values at this point of the call."""

    def __init__(self, declared: Sequence[StateVariable], settled: VariableOverrides | None = None) -> None:
        self._settled = settled
        self.variables = list(declared)
        self.inputs = [_input(each) for each in self.variables]
        self._values = {
            _key(each.variable): value for each, value in zip(self.variables, self.inputs, strict=True)
        }

    def draw(self, seed: ir.Value) -> None:
        """Remove the variables that a seed is computed from: ONNX's random operators use no seed."""
        behind = [seed]
        for value in behind:
            node = value.producer()
            behind += [each for each in (node.inputs if node else ()) if each is not None]
        kept = [index for index, value in enumerate(self.inputs) if value not in behind]
        self.inputs = [self.inputs[index] for index in kept]
        self.variables = [self.variables[index] for index in kept]

    def holds(self, variable: Any) -> bool:
        """Whether a variable is declared to be state."""
        return _key(variable) in self._values

    def read(self, variable: Any) -> ir.Value:
        """Return the value of a variable at this point; raise `Restart` if it is not declared."""
        if not self.holds(variable):
            raise Restart(variable)
        return self._values[_key(variable)]

    def write(self, variable: Any, value: ir.Value) -> None:
        """Assign a variable its next value; raise `Restart` if it is not declared."""
        self.read(variable)
        self._values[_key(variable)] = value

    def settles(self, variable: keras.Variable, value: Any) -> bool:
        """Whether an assigned value is input-independent and the current one; raise `Restart`
        with it at first.

        Only floats are considered: integers are counters and seeds, which change in each call.
        """
        concrete = self._settled is not None and not (self.holds(variable) or symbols_in(value))
        if not concrete or not keras.backend.is_float_dtype(variable.dtype):
            return False
        given = keras.ops.convert_to_numpy(keras.ops.cast(value, variable.dtype))
        if np.array_equal(given, keras.ops.convert_to_numpy(variable), equal_nan=True):
            return True
        if self._settled is not None and variable not in self._settled:
            raise Restart(variable, given)
        return False

    @property
    def values(self) -> dict[int, ir.Value]:
        """The values at this point, by the identity of the variables; assign it to restore them."""
        return dict(self._values)

    @values.setter
    def values(self, values: dict[int, ir.Value]) -> None:
        self._values = dict(values)

    @property
    def last(self) -> list[tuple[str, ir.Value]]:
        """The output's name and the value of each variable at this point, in the order of declaration."""
        return [(each.output, self.read(each.variable)) for each in self.variables]


def distinct(paths: Sequence[str]) -> list[str]:
    """Make paths unique by appending numbers: Keras names both states of an LSTM layer `rnn_state`."""
    return [
        path if path not in paths[:index] else f"{path}_{paths[:index].count(path)}"
        for index, path in enumerate(paths)
    ]


def named_by_path(variables: Sequence[Any], model: str) -> list[StateVariable]:
    """Declare variables under their paths in a model."""
    paths = distinct([_path(variable).removeprefix(f"{model}/") for variable in variables])
    return [
        StateVariable(variable, path, f"{path}/next") for variable, path in zip(variables, paths, strict=True)
    ]


def _key(variable: Any) -> int:
    """Return the identity of a variable: TensorFlow traces contain the TensorFlow variable of Keras's."""
    return id(variable._value if isinstance(variable, keras.Variable) else variable)


def _path(variable: Any) -> str:
    return str(variable.path if isinstance(variable, keras.Variable) else variable.name.partition(":")[0])


def _input(state: StateVariable) -> ir.Value:
    dtype = dtypes.to_onnx(keras.backend.standardize_dtype(state.variable.dtype))
    return ir.val(state.input, dtype, ir.Shape(state.variable.shape))
