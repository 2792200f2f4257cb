"""The versions of ONNX's operator set that a model can be written in."""

from __future__ import annotations

from functools import cache
from typing import Any

import click

__all__ = ["DEFAULT_OPSET", "OPSET", "check", "newest"]

DEFAULT_OPSET = 21

_OLDEST = 17  # the first with LayerNormalization


@cache
def newest() -> int:
    """Return the newest version that onnx knows and the installed ONNX Runtime loads."""
    import onnx  # neither is imported by who asks for no other version

    candidates = range(onnx.defs.onnx_opset_version(), DEFAULT_OPSET, -1)
    return next((version for version in candidates if _loads(version)), DEFAULT_OPSET)


def check(opset: Any) -> int:
    """Return the version that a number or its text stands for; raises `ValueError` for one out of range."""
    try:
        version = int(opset)
    except ValueError:
        version = 0
    # ONNX Runtime is asked only where the answer depends on it.
    if _OLDEST <= version <= DEFAULT_OPSET or DEFAULT_OPSET < version <= newest():
        return version
    raise ValueError(
        f"expected an operator set from {_OLDEST} to {newest()}, the newest that the installed ONNX Runtime "
        f"loads; got {opset}"
    )


class _Opset(click.ParamType[int]):
    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Check what was given."""
        try:
            return check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


#: How the text of an option is read.
OPSET = _Opset()


def _loads(version: int) -> bool:
    """Whether ONNX Runtime opens a model of this operator set."""
    import onnxruntime
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  # its errors are RuntimeErrors of a class for each code
        return False
    return True
