"""What decodes files and requests of strangers: each takes any bytes, and raises ServingErrors only."""

import struct
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kerve.runtime.artifact import read_artifact
from kerve.runtime.config import read_settings
from kerve.runtime.config.batching import batching_of
from kerve.runtime.config.complete import complete, refuse_unsupported, settle
from kerve.runtime.config.effects import without_effect
from kerve.runtime.config.policy import choose
from kerve.runtime.conversion.convert import convert
from kerve.runtime.conversion.toml import write
from kerve.runtime.ensemble.binding import Member, bind
from kerve.runtime.ensemble.scheme import read_scheme
from kerve.runtime.errors import ServingError
from kerve.runtime.http import infer
from kerve.runtime.http.wsgi import Request
from kerve.runtime.onnx_file import count_operators, external_data
from kerve.runtime.shared_memory import Region, Regions, RegionSlice
from kerve.runtime.signature import Signature, TensorSpec
from kerve.runtime.warmup import samples

__all__ = ["TARGETS", "run"]

FOLDER = Path(tempfile.mkdtemp(prefix="kerve-decoders-"))
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("batch", 2)),), (TensorSpec("y", "FP32", ("batch", None)),), batched=True
)


def model_config(name: str) -> Callable[[bytes], None]:
    """A model's configuration file, and all that is made of it."""

    def decode(data: bytes) -> None:
        folder = FOLDER / name.replace(".", "_")
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        use(folder, None)

    return decode


def override(data: bytes) -> None:
    """The configuration in a client's RepositoryModelLoad."""
    folder = FOLDER / "override"
    folder.mkdir(exist_ok=True)
    use(folder, data.decode("utf-8", "replace"))


def use(folder: Path, text: str | None) -> None:
    settings = read_settings(folder, text)
    config = settings.config
    without_effect(config)
    refuse_unsupported(config, folder)
    choose(config.version_policy, [1, 2])
    batching_of(settings, max_queue_size=4)
    if config.HasField("ensemble_scheduling"):
        scheme = read_scheme(config, folder)
        bind(scheme, config, [Member(SIGNATURE, 8) for _ in scheme.steps], folder)
        return
    signature = settle(SIGNATURE, config, folder)
    if all(each.batch_size < 100 and each.count < 100 for each in config.model_warmup):
        list(samples(config, signature, folder))
    complete(config, "m", signature, groups=[])


def manifest(data: bytes) -> None:
    """An artifact's manifest."""
    folder = FOLDER / "manifest"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(b"")
    (folder / "manifest.json").write_bytes(data)
    artifact = read_artifact(folder)
    _ = artifact.signature, artifact.hidden, artifact.random_outputs, artifact.name
    artifact.check_files()


def onnx(data: bytes) -> None:
    """What is read of a graph without ONNX Runtime."""
    file = FOLDER / "model.onnx"
    file.write_bytes(data)
    external_data(file)
    count_operators(file)


def rest(data: bytes) -> None:
    """The body of a request over HTTP: JSON, and binary tensors behind it."""
    length, _, body = data.partition(b"\n")
    headers = {"inference-header-content-length": length.decode("latin-1")} if length else {}
    infer.decode(Request("POST", "/v2/models/m/infer", headers=headers, body=body), "m", "")


def shared_memory(data: bytes) -> None:
    """Where a client says that its tensors lie."""
    numbers = struct.unpack("<6Q", data[:48].ljust(48, b"\0"))
    name = data[48:].decode("latin-1")
    regions = Regions()
    for key in (name, "/kerve-decoders"):
        with suppress(ServingError):
            regions.register(Region("r", key, numbers[0], numbers[1]))
    place = RegionSlice("r", numbers[2], min(numbers[3], 1 << 20))
    with suppress(ServingError):
        regions.read("x", place)
    regions.write("x", RegionSlice("r", numbers[4], numbers[5]), data)


def conversion(data: bytes) -> None:
    """Another server's configuration, as a person gives it."""
    for table in convert(data.decode("utf-8", "replace")).models.values():
        write(table)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "pbtxt": model_config("config.pbtxt"),
    "toml": model_config("config.toml"),
    "override": override,
    "manifest": manifest,
    "onnx": onnx,
    "rest": rest,
    "shared_memory": shared_memory,
    "conversion": conversion,
}


def run(name: str, data: bytes) -> None:
    """Decode; whatever is raised but a ServingError is a fault."""
    with suppress(ServingError):
        TARGETS[name](data)
