"""TensorRT: the CUDA provider serves immediately, TensorRT once its engine is built and verified.

    CUDA session serves | a separate process builds the engine -> cache | opened, verified -> serves

Building an engine takes seconds to minutes. It happens in a separate process, so that the GIL, a capture of
CUDA graphs or a crash of the builder does not affect serving; this process then reads the cache. Engines are
cached by the model's contents, the device's product name and TensorRT's version.
"""

import ctypes
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.device import Device
from kerve.runtime.devices.device_array import DeviceArray
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.errors import ArtifactError
from kerve.runtime.session import Session
from kerve.runtime.signature import TensorSpec

__all__ = ["Builder", "Engine", "Profile", "TensorRtSession", "provider_options"]

log = logging.getLogger(__name__)

LIBRARY = "libnvinfer.so.10"
# The file that `kerve compile --target tensorrt` adds to the artifact.
COMPILED = "model.tensorrt.onnx"
# Bytes at the end of the builder's output that an error message quotes.
LAST_WORDS = 800

# For each input the minimum, optimum and maximum shape; empty: no profile.
Profile = Mapping[str, tuple[tuple[int, ...], ...]]


def provider_options(
    index: int, cache: Path, precision: str = "float32", profile: Profile | None = None
) -> dict[str, str]:
    """Return the TensorRT provider's options
    (https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html).

    ONNX Runtime's Python module accepts boolean options only as `True` and `False`.
    """
    shapes = {
        f"trt_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, each[position]))}" for name, each in (profile or {}).items()
        )
        for position, which in enumerate(("min", "opt", "max"))
        if profile
    }
    return {
        "device_id": str(index),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache.parent),
        # Allows TensorRT to compute in the artifact's own precision.
        **({"trt_fp16_enable": "True"} if precision == "float16" else {}),
        **({"trt_bf16_enable": "True"} if precision == "bfloat16" else {}),
        **shapes,
    }


def profile_of(inputs: Sequence[TensorSpec], sizes: Collection[int]) -> Profile:
    """Return the profile for batches of these sizes; empty if a dimension other than the batch is dynamic."""
    if not sizes or not all(
        spec.shape and all(isinstance(size, int) for size in spec.shape[1:]) for spec in inputs
    ):
        return {}
    largest = max(sizes)
    return {
        spec.name: tuple((rows, *map(int, spec.shape[1:])) for rows in (1, largest, largest))  # type: ignore[arg-type]  # checked above
        for spec in inputs
    }


def engine_folder(model_file: Path, device: Device) -> Path:
    """Return the cache folder of a model's engine for a device."""
    digest = hashlib.sha256()
    for file in sorted(model_file.parent.glob(f"{model_file.name}*")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    product = re.sub(r"\W+", "-", device.name or "gpu").strip("-")
    version = ctypes.CDLL(LIBRARY).getInferLibVersion()
    return base / "kerve" / "tensorrt" / f"{product}-{version}" / digest.hexdigest()[:32]


class Builder(Protocol):
    """Builds and opens an engine."""

    def build(self, profile: Profile) -> None:
        """Build the engine into the cache; raises ArtifactError on failure."""

    def open(self, profile: Profile) -> LaneSession:
        """Return a session with the engine in the cache."""

    def cancel(self) -> None:
        """Abort `build`, from another thread."""


@dataclass
class Engine:
    """A model's engine on a device."""

    model_file: Path
    device: Device
    precision: str
    # Further arguments of `Session`.
    given: Mapping[str, Any]
    providers: Callable[[Device, Mapping[str, str]], Any]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def build(self, profile: Profile) -> None:
        """Run a process that opens the model with TensorRT, which builds the engine; not needed if the
        artifact contains one.
        """
        if not self._compiled.exists():
            self._run_builder(profile)

    def _run_builder(self, profile: Profile) -> None:
        folder = engine_folder(self.model_file, self.device)
        folder.mkdir(parents=True, exist_ok=True)
        order = {
            "model": str(self.model_file),
            "providers": self._providers(profile),
            "hidden": list(self.given.get("hidden", ())),
            "shapes": [{name: shapes[at] for name, shapes in profile.items()} for at in (0, 2) if profile],
        }
        command = [sys.executable, "-m", "kerve.runtime.devices.build_engine"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            self._process = process
            said, _ = process.communicate(json.dumps(order).encode())
        if process.returncode:
            raise ArtifactError(
                f"TensorRT's engine cannot be built (exit code {process.returncode}): "
                f"{said.decode(errors='replace').strip()[-LAST_WORDS:]}"
            )

    def open(self, profile: Profile) -> LaneSession:
        """Return a session with the artifact's engine, or else with the one in the cache."""
        if self._compiled.exists():
            try:
                return self._session(self._compiled, {})
            except ArtifactError as error:  # it is for another device or TensorRT version
                log.info("%s cannot be used here, building another engine: %s", self._compiled, error)
                self._run_builder(profile)
        return self._session(self.model_file, profile)

    def cancel(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()

    @property
    def _compiled(self) -> Path:
        return self.model_file.with_name(COMPILED)

    def _session(self, file: Path, profile: Profile) -> LaneSession:
        return LaneSession(file, providers=self._providers(profile), buffers=None, **self.given)

    def _providers(self, profile: Profile) -> Any:
        folder = engine_folder(self.model_file, self.device)
        options = provider_options(self.device.index, folder, self.precision, profile)
        return self.providers(self.device, options)


class TensorRtSession(LaneSession):
    """A session with the CUDA provider, which is replaced by an engine between two batches."""

    def __init__(self, model_file: Path, *, builder: Builder, **given: Any) -> None:
        super().__init__(model_file, **given)
        self._file, self._builder = model_file, builder
        #: State of the engine: CUDA serves while it is being built or if that failed.
        self.engine: Literal["building", "ready", "failed"] = "building"
        self._engine: LaneSession | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def improve(self, sizes: Collection[int], prove: Callable[[Session], None]) -> None:
        """Start building an engine for batches of these sizes; it is used if `prove` does not raise."""

        def work() -> None:
            engine = None
            try:
                profile = profile_of(self.inputs, sizes)
                self._builder.build(profile)
                if self._closing.is_set():
                    return
                engine = self._builder.open(profile)
                prove(engine)
            except Exception as error:  # noqa: BLE001  CUDA continues to serve
                if engine is not None:
                    engine.close()
                if not self._closing.is_set():
                    self.engine = "failed"
                    log.error("%s stays on the CUDA provider: %s", self._file, error)
                return
            self._engine, self.engine = engine, "ready"
            self.hardware = engine.hardware
            log.info("%s now runs on TensorRT", self._file)
            if self._closing.is_set():
                engine.close()

        self._thread = threading.Thread(target=work, name=f"engine {self._file}", daemon=True)
        self._thread.start()

    def keep(
        self, inputs: Mapping[str, Array | DeviceArray], outputs: Sequence[str]
    ) -> dict[str, DeviceArray]:
        """Compute the named outputs and leave them on the device."""
        engine = self._engine
        return super().keep(inputs, outputs) if engine is None else engine.keep(inputs, outputs)

    def terminate(self) -> None:
        """Interrupt current runs and the build."""
        super().terminate()
        self._closing.set()
        self._builder.cancel()
        if self._engine is not None:
            self._engine.terminate()

    def close(self) -> None:
        """Release both sessions."""
        super().close()
        if self._engine is not None:
            self._engine.close()

    def _run_in_lane(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        engine = self._engine
        return super()._run_in_lane(inputs, outputs) if engine is None else engine.run(inputs, outputs)
