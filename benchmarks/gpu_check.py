"""Check that all of kerve's GPU functions work on this machine; prints a table of the steps.

    python benchmarks/gpu_check.py --device cuda:0 [FOLDER]

FOLDER contains the parts written by gpu_artifacts.py (`--only mlp,mobilenetv2` is enough); without it, steps
that need them are skipped. Needs onnxruntime-gpu and the packages of `kerve[serve-gpu]`; kerve itself is
imported from this source tree. Every step runs in a separate process with a time limit, so that one failure
does not hide others; steps beyond `--budget` seconds are skipped and reported. `--device cpu` is a dry run.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOTS = ("cli", "runtime", "proto")
sys.path[:0] = [str(ROOT / each) for each in ROOTS]
# The time limit of a step in seconds, and the lines of its output that are shown.
LIMIT, SHOWN = 60, 40
# The modules that kerve needs to serve.
MODULES = (
    *("numpy", "onnxruntime", "grpc", "google", "grpc_health", "grpc_reflection"),
    *("prometheus_client", "waitress", "click", "rich"),
)


def environment(folder: Path) -> Mapping[str, str]:
    """Return environment variables to import kerve from the source tree, even if it is not installed."""
    paths = [str(ROOT / each) for each in ROOTS]
    try:
        importlib.metadata.version("kerve")
    except importlib.metadata.PackageNotFoundError:
        metadata = folder / "kerve-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kerve\nVersion: 0+source\n")
        paths.append(str(folder))
    given = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *([given] if given else [])])}


def take(name: str, arguments: argparse.Namespace) -> None:
    """Run one step in this process; the last line of output is its result."""
    from gpu_artifacts import unpack
    from gpu_checks import STEPS
    from gpu_setting import Setting, Skip

    artifacts = None
    if arguments.folder is not None:
        unpack(arguments.folder / "parts", arguments.folder / "unpacked")
        artifacts = arguments.folder / "unpacked" / "models"
    with tempfile.TemporaryDirectory() as work:
        try:
            seen = STEPS[name](Setting(arguments.device, artifacts, Path(work)))
        except Skip as reason:
            print(f"skipped: {reason}")
            return
        print(f"ok: {seen}")


def run(name: str, arguments: argparse.Namespace, variables: Mapping[str, str]) -> tuple[str, str]:
    """Run a step in a separate process; returns the verdict and the result."""
    folder = [str(arguments.folder)] if arguments.folder else []
    command = [sys.executable, __file__, *folder, "--device", arguments.device, "--step", name]
    try:
        done = subprocess.run(
            command,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=arguments.limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        print(f"--- {name}: over its time\n{output.decode() if isinstance(output, bytes) else output}")
        return "FAILED", f"not done after {arguments.limit:g} s"
    lines = done.stdout.strip().splitlines() or [""]
    if done.returncode == 0:
        verdict, _, seen = lines[-1].partition(": ")
        return verdict, seen
    print(f"--- {name}: exit code {done.returncode}", *lines[-SHOWN:], sep="\n", flush=True)
    return "FAILED", lines[-1][:200]


def main(given: Sequence[str] | None = None) -> int:
    if missing := [name for name in MODULES if find_spec(name) is None]:
        print(f"these modules are missing: {', '.join(missing)}; put their packages on PYTHONPATH")
        return 2
    from gpu_checks import STEPS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument(
        "--step", choices=STEPS, action="append", help="only this; may be given several times"
    )
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each step")
    parser.add_argument("--budget", type=float, default=220, help="seconds after which nothing new is begun")
    arguments = parser.parse_args(given)
    if os.environ.get(STEP_ALONE):
        take(arguments.step[0], arguments)
        return 0
    begin, table = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        variables = {**environment(Path(folder)), STEP_ALONE: "1"}
        for name in arguments.step or STEPS:
            if time.monotonic() - begin > arguments.budget:
                table.append((name, "left out", 0.0, "the time was over"))
                continue
            before = time.monotonic()
            verdict, seen = run(name, arguments, variables)
            table.append((name, verdict, time.monotonic() - before, seen))
            print(f"{name}: {verdict}", flush=True)
    print(f"\n{'step':26}{'verdict':10}{'s':>6}  seen")
    for name, verdict, seconds, seen in table:
        print(f"{name:26}{verdict:10}{seconds:6.1f}  {seen}")
    return int(any(verdict == "FAILED" for _, verdict, _, _ in table))


# The environment variable set for the process of a single step.
STEP_ALONE = "KERVE_CHECK_STEP"

if __name__ == "__main__":
    sys.exit(main())
