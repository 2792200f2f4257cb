"""The process that builds the TensorRT engine of one model into the cache, started by `tensorrt.Engine`.

It reads its parameters from standard input; an error is the last thing that it prints.
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
    """Open a model, which builds the engine, and run it at the shapes of the profile."""
    load_packaged()
    providers = [(name, options) for name, options in order["providers"]]
    session = Session(Path(order["model"]), threads=1, providers=providers, hidden=order["hidden"])
    datatypes = {spec.name: DATATYPES[spec.datatype].dtype for spec in session.inputs}
    for shapes in order["shapes"]:
        inputs = {name: np.zeros(shape, datatypes[name]) for name, shape in shapes.items()}
        session.run(inputs, [spec.name for spec in session.outputs])
    session.close()


if __name__ == "__main__":
    os.nice(NICE)  # requests take precedence
    try:
        build(json.load(sys.stdin))
    except ServingError as error:
        sys.exit(str(error.__cause__ or error))
