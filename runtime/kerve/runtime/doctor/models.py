"""Where the models of a repository would run: the provider of every node, as assigned by ONNX Runtime."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kerve.runtime.artifact import read_artifact
from kerve.runtime.config import read_settings
from kerve.runtime.config.policy import choose
from kerve.runtime.devices.choice import Devices
from kerve.runtime.devices.libraries import load_packaged
from kerve.runtime.devices.placement import DeviceConfig, place
from kerve.runtime.devices.sessions import providers_for
from kerve.runtime.errors import ServingError
from kerve.runtime.repository import Repository, Source, scan
from kerve.runtime.session import RECORD, Assignment, Session

__all__ = ["Finding", "examine_models"]


@dataclass(frozen=True)
class Finding:
    """One version of a model on one device; without a device, why it cannot be served."""

    model: str
    version: int
    device: str = ""
    instances: int = 0
    # Numbers of nodes by provider.
    nodes: dict[str, int] = field(default_factory=dict)
    # Nodes that fall back from the device to the CPU.
    fallen: list[Assignment] = field(default_factory=list)
    problem: str = ""

    def json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "fallen": [each._asdict() for each in self.fallen]}


def examine_models(repositories: list[Repository], devices: Devices) -> list[Finding]:
    """Return the findings for the versions that would be served."""
    return [finding for source in scan(repositories).values() for finding in examine_model(source, devices)]


def examine_model(source: Source, devices: Devices) -> list[Finding]:
    """Return the findings for one model."""
    if source.problem:
        return [Finding(source.name, 0, problem=source.problem)]
    try:
        settings = read_settings(source.folder)
        choice = choose(settings.config.version_policy, source.versions)
        placements = place(settings.config, devices, settings.cuda, source.folder)
        instances = Counter(placement.place for placement in placements)
        shared = {each.place: each.executors for each in placements if each.place.device.kind == "cpu"}
        file_name = settings.config.default_model_filename or "model.onnx"
        return [
            examine_version(source, version, file_name, where, shared.get(where, count))
            for version in choice.candidates[: choice.enough]
            for where, count in instances.items()
        ]
    except ServingError as error:
        return [Finding(source.name, 0, problem=str(error))]


def examine_version(
    source: Source, version: int, file_name: str, where: DeviceConfig, instances: int
) -> Finding:
    """Load a version on a device, and return the providers of its nodes."""
    device = where.device
    try:
        artifact = read_artifact(source.versions[version], file_name)
        artifact.check_files()
        found = assignments(artifact.model_file, where)
    except ServingError as error:
        return Finding(source.name, version, str(device), instances, problem=str(error))
    counts = Counter(each.provider for each in found)
    on_cpu = [each for each in found if each.provider == "CPUExecutionProvider"]
    fallen = [] if device.kind == "cpu" else on_cpu
    return Finding(source.name, version, str(device), instances, dict(counts), fallen)


def assignments(file: Path, where: DeviceConfig) -> list[Assignment]:
    """Return the provider of each node of a model; raises ArtifactError if it cannot be loaded."""
    if where.device.kind != "cpu":
        load_packaged()
    providers = providers_for(where.device, where.cuda, enable_cuda_graph="0")
    session = Session(file, threads=1, providers=providers, entries={RECORD: "1"})
    try:
        return session.assignments()
    finally:
        session.close()
