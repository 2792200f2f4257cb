"""Run every example, two at a time: `python examples`.

Importing TensorFlow takes longer than most examples. It is imported once, and each example runs in a fork of
this process, as the script would by itself. Its output is shown when it ends.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, NamedTuple

import data  # noqa: F401  # before TensorFlow, to reduce its logging
import keras  # noqa: F401

import kerve.compiler.pipeline  # noqa: F401

HERE = Path(__file__).parent
# An example spends half of its time waiting for a process that it started.
AT_ONCE = 2


class Example(NamedTuple):
    """A running script and its output."""

    script: Path
    output: IO[bytes]
    process: BaseProcess

    @classmethod
    def start(cls, script: Path) -> "Example":
        output = tempfile.TemporaryFile()  # noqa: SIM115  # closed at its end
        process = multiprocessing.get_context("fork").Process(target=run, args=(script, output))
        process.start()
        return cls(script, output, process)

    def end(self) -> int | None:
        """Show its output; return its exit code."""
        self.process.join()
        with self.output:
            self.output.seek(0)
            print(f"\n{self.script}\n{self.output.read().decode()}", end="", flush=True)
        return self.process.exitcode


def run(script: Path, output: IO[bytes]) -> None:
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.argv = [str(script)]
    runpy.run_path(str(script), run_name="__main__")


def main() -> None:
    texts = {script: script.read_text("utf-8").rstrip() for script in sorted(HERE.glob("*.py"))}
    waiting = [script for script, text in texts.items() if text.endswith(" start(main)")]
    running: list[Example] = []
    failed: list[str] = []
    while running or (waiting and not failed):
        while waiting and not failed and len(running) < AT_ONCE:
            running.append(Example.start(waiting.pop(0)))
        wait([each.process.sentinel for each in running])
        for example in [each for each in running if not each.process.is_alive()]:
            running.remove(example)
            if code := example.end():
                failed.append(f"{example.script} ended with exit code {code}")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
