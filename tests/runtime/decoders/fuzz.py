"""Runs atheris on one decoder: `python fuzz.py TARGET [options of libFuzzer] [FOLDER...]`.

`make fuzz-python` does it for each of them, and brings atheris.
"""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    atheris = importlib.import_module("atheris")  # not of the locked dependencies
    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=["kerve", "targets", "json", "tomllib"]):
        targets = importlib.import_module("targets")
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: targets.run(name, data))
    atheris.Fuzz()
