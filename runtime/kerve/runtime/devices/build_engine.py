"""Builds TensorRT's engine of one model into the cache: a process that `tensorrt.Engine` runs.

It reads its order from standard input, and what goes wrong is the end of what it prints.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kerve.runtime.background import NICE
from kerve.runtime.datatypes import DATATYPES
from kerve.runtime.devices.libraries import load_packaged
from kerve.runtime.errors import ServingError
from kerve.runtime.session import Session


def build(order: Any) -> None:
    """Open a model, which builds what its profile says, and run it at the shapes of it."""
    load_packaged()
    providers = [(name, options) for name, options in order["providers"]]
    session = Session(Path(order["model"]), threads=1, providers=providers, hidden=order["hidden"])
    datatypes = {spec.name: DATATYPES[spec.datatype].dtype for spec in session.inputs}
    for shapes in order["shapes"]:
        inputs = {name: np.zeros(shape, datatypes[name]) for name, shape in shapes.items()}
        session.run(inputs, [spec.name for spec in session.outputs])
    session.close()


if __name__ == "__main__":
    os.nice(NICE)  # those who are served go first
    try:
        build(json.load(sys.stdin))
    except ServingError as error:
        sys.exit(str(error.__cause__ or error))
