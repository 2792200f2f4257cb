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
    import onnx  # like onnxruntime, needed only for versions newer than the default

    candidates = range(onnx.defs.onnx_opset_version(), DEFAULT_OPSET, -1)
    return next((version for version in candidates if _loads(version)), DEFAULT_OPSET)


def check(opset: Any) -> int:
    """Return the version given as a number or as text; raises `ValueError` if it is out of range."""
    try:
        version = int(opset)
    except ValueError:
        version = 0
    # `newest` is evaluated last: it loads ONNX Runtime.
    if _OLDEST <= version <= DEFAULT_OPSET or DEFAULT_OPSET < version <= newest():
        return version
    raise ValueError(
        f"expected an operator set from {_OLDEST} to {newest()}, the newest that the installed ONNX Runtime "
        f"loads; got {opset}"
    )


class _Opset(click.ParamType[int]):
    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert the text of an option."""
        try:
            return check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


#: The option type of `--opset`.
OPSET = _Opset()


def _loads(version: int) -> bool:
    """Return whether ONNX Runtime loads a model of this operator set."""
    import onnxruntime
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  # ONNX Runtime has an exception class for each error code
        return False
    return True
