"""Reads a model's settings: `config.pbtxt`, merged with `config.toml`, or a client's JSON instead.

`config.toml` contains the fields of Triton's ModelConfig under their own names, and kerve's own:

    max_batch_size = 32
    batch_buckets = [1, 8, 32]              # kerve's: sizes to which batches are padded
    labels = { stable = 3, canary = 4 }     # kerve's: names for versions
    threads = 4                             # kerve's: CPU threads of each instance
    shrink_memory = true                    # kerve's: release memory after each run
    memory_limit = 500_000_000              # kerve's: maximum bytes of memory on the CPU
    cuda = { use_tf32 = true }              # kerve's: how the model uses a GPU

    [version_policy.specific]
    versions = [3, 4]

    [dynamic_batching]
    max_queue_delay_microseconds = 500
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import json_format, text_format

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.ranges import check_ranges
from kerve.runtime.cpus import MOST_THREADS
from kerve.runtime.devices.options import CudaOptions, cuda_options
from kerve.runtime.errors import ArtifactError, InvalidArgumentError

__all__ = ["CONFIG_FILES", "MOST_ROWS", "OWN_KEYS", "Settings", "is_label", "read_settings"]

PBTXT = "config.pbtxt"
TOML = "config.toml"
CONFIG_FILES = (PBTXT, TOML)

#: Maximum rows of a batch if no limit is set. In practice the queue's limit, in requests, bounds a batch
#: first. A request of more rows is split, and each part counts as a request, so a small number here would
#: refuse a client's single large batch.
MOST_ROWS = 1 << 16

# What protobuf raises for JSON: it does not check that values are objects where it expects them.
NOT_A_CONFIG = (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError)


class OwnKey(NamedTuple):
    """A key of config.toml that Triton does not have: the type of its value, and its description."""

    kind: type
    help: str


OWN_KEYS: Mapping[str, OwnKey] = {
    "batch_buckets": OwnKey(list, "Sizes to which batches are padded; a version is warmed up with each."),
    "labels": OwnKey(dict, "Names for versions; clients can request a label instead of a version."),
    "cuda": OwnKey(dict, "How the model uses a GPU; see the options in the table below."),
    "threads": OwnKey(int, "CPU threads of each instance; 0: the server decides."),
    "shrink_memory": OwnKey(
        bool,
        "Whether memory is released after each run; slower, useful if large batches are rare.",
    ),
    "memory_limit": OwnKey(
        int,
        "Maximum bytes of CPU memory of the model: weights, their packed copies, and what the runs of its "
        "instances need; 0: no limit. A version that needs more after warm-up is not served; a request that "
        "would need more is refused.",
    ),
}


@dataclass(frozen=True)
class Settings:
    """The settings of a model."""

    config: pb.ModelConfig = field(default_factory=pb.ModelConfig)
    batch_buckets: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    # CPU threads of each instance; 0: the server decides.
    threads: int = 0
    # Whether memory is released after each run.
    shrink_memory: bool = False
    # Maximum bytes of memory on the CPU; 0: no limit.
    memory_limit: int = 0
    cuda: CudaOptions = field(default_factory=CudaOptions)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the settings without labels and version policy, which do not require a reload."""
        config = pb.ModelConfig.FromString(self.config.SerializeToString())
        config.ClearField("version_policy")
        own = (self.batch_buckets, self.threads, self.shrink_memory, self.memory_limit, self.cuda)
        return f"{config.SerializeToString(deterministic=True).hex()} {own}"


def read_settings(folder: Path, override: str | None = None) -> Settings:
    """Return the settings in a model's folder.

    `override`: a client's JSON, which replaces `config.pbtxt` and the ModelConfig fields of `config.toml`.
    Raises ArtifactError, or InvalidArgumentError for an invalid override.
    """
    try:
        table = read_toml(folder / TOML)
        own = {key: table.pop(key) for key in OWN_KEYS if key in table}
        config = read_pbtxt(folder / PBTXT) if override is None else parse_json(override)
        if override is None:
            config.MergeFrom(parse_table(folder / TOML, table))
        check_ranges(config, folder)
        return Settings(config, **checked(folder / TOML, own, config.max_batch_size or MOST_ROWS))
    except OSError as error:
        raise ArtifactError(f"{folder}: its configuration cannot be read: {error}") from error


def read_toml(file: Path) -> dict[str, Any]:
    """Return the table in a TOML file; empty if there is none."""
    if not file.is_file():
        return {}
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{file} is not a TOML file: {error}") from error


def read_pbtxt(file: Path) -> pb.ModelConfig:
    """Return Triton's configuration in text form; empty if there is none."""
    if not file.is_file():
        return pb.ModelConfig()
    try:
        return text_format.Parse(file.read_text(), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{file} is not a model configuration: {error}") from error


def parse_table(file: Path, table: dict[str, Any]) -> pb.ModelConfig:
    """Return the ModelConfig in a table of TOML."""
    try:
        return json_format.ParseDict(table, pb.ModelConfig())
    except NOT_A_CONFIG as error:
        raise ArtifactError(
            f"{file}: {error}; expected fields of Triton's ModelConfig or {', '.join(OWN_KEYS)}"
        ) from error


def parse_json(override: str) -> pb.ModelConfig:
    """Return the ModelConfig that a client sent."""
    try:
        given = json.loads(override)
        if not isinstance(given, dict):
            raise TypeError(f"expected an object, got {given!r}")
        return json_format.ParseDict(given, pb.ModelConfig())
    except NOT_A_CONFIG as error:
        raise InvalidArgumentError(f"parameter 'config': expected a ModelConfig as JSON: {error}") from error


def is_label(text: str) -> bool:
    """Return whether a text is a valid label: numbers are versions, and an empty name means the default."""
    return bool(text) and not text.isdecimal()


def checked(file: Path, own: Mapping[str, Any], max_rows: int) -> dict[str, Any]:
    """Check kerve's own keys and convert them for `Settings`; `max_rows`: maximum rows of a batch."""
    for key, value in own.items():
        if type(value) is not OWN_KEYS[key].kind:  # isinstance would accept True as an int
            raise ArtifactError(f"{file}: {key}: expected {OWN_KEYS[key].kind.__name__}, got {value!r}")
    for label, version in own.get("labels", {}).items():
        if not is_label(label) or type(version) is not int:
            raise ArtifactError(
                f"{file}: labels: expected a name that is not a number and a version number, as stable = 3; "
                f"got {label!r} = {version!r}"
            )
    buckets = own.get("batch_buckets", [])
    if not all(type(size) is int and size > 0 for size in buckets):
        raise ArtifactError(f"{file}: batch_buckets: expected sizes above 0, got {buckets}")
    if max(buckets, default=0) > max_rows:
        raise ArtifactError(
            f"{file}: batch_buckets: expected sizes up to {max_rows}, the largest batch (max_batch_size), "
            f"got {max(buckets)}; no batch would be padded to it"
        )
    if own.get("memory_limit", 0) < 0:
        raise ArtifactError(f"{file}: memory_limit: expected 0 or more, got {own['memory_limit']}")
    if not 0 <= own.get("threads", 0) <= MOST_THREADS:
        raise ArtifactError(f"{file}: threads: expected 0 to {MOST_THREADS}, got {own['threads']}")
    cuda = cuda_options(file, own.get("cuda", {}))
    return {**own, "batch_buckets": tuple(sorted(buckets)), "cuda": cuda}
