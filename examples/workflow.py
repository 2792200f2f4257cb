"""Common parts of the examples: run `kerve`, serve a repository, compare with Keras."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

KERVE = str(Path(sys.executable).with_name("kerve"))
FIXTURES = Path(__file__).parents[1] / "tests" / "compiler" / "fixtures"
RTOL, ATOL = 1e-4, 1e-5

Arrays = dict[str, NDArray[Any]]


def start(main: Callable[[Path], None]) -> None:
    """Call `main` with the folder given on the command line, or with a temporary one."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SystemExit(f"{folder} is not empty; name a new folder")
        main(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="kerve-") as temporary:
            main(Path(temporary))


def kerve(*words: str | Path, exit_code: int = 0) -> None:
    """Run a command; an unexpected exit code ends the example."""
    done = subprocess.run(shown(*words), check=False)
    if done.returncode != exit_code:
        raise SystemExit(f"kerve {words[0]} ended with exit code {done.returncode}, expected {exit_code}")


def shown(*words: str | Path) -> list[str]:
    """Print a command as it would be typed; return it as a list."""
    print("$ kerve", *words, flush=True)
    return [KERVE, *map(str, words)]


@contextmanager
def serving(repository: Path, *flags: str) -> Iterator[str]:
    """Run `kerve serve` in a process; yields its gRPC address once it is ready."""
    command = shown("serve", "--repository", repository, *flags)
    ports = {"KERVE_GRPC_PORT": "0", "KERVE_HTTP_PORT": "0"}  # gRPC on any free port, HTTP off
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ports})
    try:
        assert server.stdout is not None
        for line in server.stdout:
            print(line, end="", flush=True)
            if address := re.search(r"gRPC on (127\.0\.0\.1:\d+)", line):
                yield address[1]
                break
        else:
            raise SystemExit("kerve serve ended before it was ready")
    finally:
        server.send_signal(signal.SIGTERM)
        if server.wait(timeout=60) != 0:
            raise SystemExit(f"kerve serve ended with exit code {server.returncode}")


def evaluate(name: str, data: Path, address: str) -> Arrays:
    """Return the results of `kerve evaluate` on a file of labelled rows, by Keras's names."""
    command = shown("evaluate", name, "--data", data, "--address", address, "--json")
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(f"kerve evaluate ended with exit code {done.returncode}, expected 0")
    return named(json.loads(done.stdout)["results"])


def compare_evaluation(name: str, model: Any, x: Any, y: Any, *, folder: Path, address: str) -> None:
    """Write rows to a file and compare `kerve evaluate` on it with `model.evaluate()`; see `compare`."""
    data = folder / f"{name}.npz"
    np.savez(data, **named(x, "x"), **named(y, "y"))  # type: ignore[arg-type]  # its stub takes them for a flag
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    compare(f"{name} evaluate", keras=expected, served=evaluate(name, data, address))


def compare(
    what: str, *, keras: Mapping[str, ArrayLike] | ArrayLike, served: Mapping[str, ArrayLike] | ArrayLike
) -> None:
    """Print the largest difference of each output from Keras's; one beyond the tolerance ends the example."""
    expected, got = named(keras), named(served)
    if expected.keys() != got.keys():
        raise SystemExit(f"{what}: Keras returns {sorted(expected)}, the server {sorted(got)}")
    for name, wanted in expected.items():
        answer = got[name]
        if wanted.shape != answer.shape or not wanted.size:
            raise SystemExit(f"{what} {name}: Keras returns shape {wanted.shape}, the server {answer.shape}")
        difference = np.abs(answer.astype(float) - wanted.astype(float))
        allowed = RTOL * np.abs(wanted) + ATOL * max(1.0, float(np.abs(wanted).max()))
        equal = bool((difference <= allowed).all())  # false for NaN
        shown = f"{float(wanted):.6g} and {float(answer):.6g}" if wanted.ndim == 0 else f"{wanted.shape}"
        print(
            f"  {what} {name}: Keras and served {shown}, largest difference {difference.max():.1e}",
            "equal" if equal else "DIFFERENT",
            sep=", ",
            flush=True,
        )
        if not equal:
            raise SystemExit(f"{what} {name}: the served outputs differ from Keras's")


def named(arrays: Mapping[str, ArrayLike] | ArrayLike, alone: str = "answers") -> Arrays:
    """Return arrays by name; a single array gets the name `alone`."""
    by_name = arrays if isinstance(arrays, Mapping) else {alone: arrays}
    return {name: np.asarray(array) for name, array in by_name.items()}


def written_by(writer: str, folder: Path) -> Path:
    """Unpack files written by an old TensorFlow, such as "tf2.4"; the scripts are beside them."""
    shutil.unpack_archive(FIXTURES / f"{writer}.zip", folder / writer)
    return folder / writer


def recorded(file: Path) -> tuple[Arrays, Arrays]:
    """Return the inputs and outputs recorded with the old TensorFlow, by name."""
    with np.load(file) as arrays:
        return tuple(
            {key.removeprefix(f"{kind}/"): arrays[key] for key in arrays.files if key.startswith(f"{kind}/")}
            for kind in ("input", "output")
        )  # type: ignore[return-value]
