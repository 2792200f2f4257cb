"""Run every example, one after the other: `python examples`.

TensorFlow takes longer to import than most examples take to run. It is imported once, and each example is a
copy of this process (a fork), in which the script runs as it does by itself.
"""

import multiprocessing
import runpy
import sys
from pathlib import Path

import data  # noqa: F401  # before TensorFlow, whose log it quietens
import keras  # noqa: F401

import kerve.compiler.pipeline  # noqa: F401

HERE = Path(__file__).parent


def run(script: str) -> None:
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    processes = multiprocessing.get_context("fork")
    for script in sorted(HERE.glob("*.py")):
        if not script.read_text("utf-8").rstrip().endswith(" start(main)"):
            continue
        print(f"\n{script}", flush=True)
        example = processes.Process(target=run, args=(str(script),))
        example.start()
        example.join()
        if example.exitcode:
            raise SystemExit(f"{script} ended with exit code {example.exitcode}")


if __name__ == "__main__":
    main()
