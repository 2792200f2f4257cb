"""Placement of a model's instances: Triton's `instance_group` on the devices of the server.

| kind | without `gpus` | with `gpus` |
|---|---|---|
| KIND_AUTO, KIND_MODEL | every device of the server | these devices |
| KIND_GPU | every GPU of the server; none is an error | these GPUs |
| KIND_CPU | the CPU | an error |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.devices.choice import Devices
from kerve.runtime.devices.device import CPU, Device
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.errors import ArtifactError

__all__ = ["ON_CPU", "DeviceConfig", "Placement", "complete_groups", "place"]

GROUP = pb.ModelInstanceGroup
AUTO = pb.ModelInstanceGroup()


@dataclass(frozen=True)
class DeviceConfig:
    """A device and its options for a model."""

    device: Device = CPU
    cuda: CudaOptions = field(default_factory=CudaOptions)

    @property
    def rounds(self) -> bool:
        """Whether the operands of float32 products may be rounded to TF32; TensorRT always may."""
        return self.device.kind == "tensorrt" or (self.device.kind == "cuda" and self.cuda.use_tf32)


ON_CPU = DeviceConfig()


@dataclass(frozen=True)
class Placement:
    """A copy of a model in the memory of a device, and the number of threads that compute with it.

    On the CPU, instances share one copy; on a GPU each has its own, with a thread for each batch in flight.
    """

    place: DeviceConfig
    executors: int


def place(config: pb.ModelConfig, devices: Devices, cuda: CudaOptions, folder: Path) -> tuple[Placement, ...]:
    """Return where to load a model; raises ArtifactError if the server has no such device."""
    groups = [group for group in config.instance_group if not group.passive] or [AUTO]
    wanted = [
        (device, max(1, group.count)) for group in groups for device in devices_of(group, devices, folder)
    ]
    on_cpu = sum(count for device, count in wanted if device == CPU)
    found = [Placement(DeviceConfig(CPU), on_cpu)] if on_cpu else []
    for device, count in wanted:
        if device != CPU:
            found += [Placement(DeviceConfig(device, cuda), max(1, cuda.buffers))] * count
    return tuple(found)


def devices_of(group: pb.ModelInstanceGroup, devices: Devices, folder: Path) -> Sequence[Device]:
    """Return the devices of a group, each of which has all its instances."""
    where = f"{folder}: instance_group: {GROUP.Kind.Name(group.kind)}"
    if group.kind == GROUP.KIND_CPU:
        if group.gpus:
            raise ArtifactError(f"{where} names gpus {list(group.gpus)}; remove them, or use KIND_GPU")
        return (CPU,)
    gpus = {device.index: device for device in devices.devices if device != CPU}
    if group.kind != GROUP.KIND_GPU and not group.gpus:
        return devices.devices
    if not gpus:
        raise ArtifactError(
            f"{where}, but this server uses no GPU; use KIND_CPU or KIND_AUTO, or start the server with "
            f"--device cuda (it computes on the CPU: {devices.why})"
        )
    if absent := [index for index in group.gpus if index not in gpus]:
        raise ArtifactError(f"{where} names GPU {absent[0]}; this server has: {devices}")
    return [gpus[index] for index in group.gpus] or list(gpus.values())


def complete_groups(placements: Sequence[Placement], name: str) -> list[pb.ModelInstanceGroup]:
    """Return the instance groups that describe the placements in a model's configuration."""
    groups: dict[Device, pb.ModelInstanceGroup] = {}
    for placement in placements:
        device = placement.place.device
        if device == CPU:
            groups[device] = GROUP(name=name, kind=GROUP.KIND_CPU, count=placement.executors)
            continue
        group = groups.setdefault(
            device, GROUP(name=f"{name}_{device.index}", kind=GROUP.KIND_GPU, gpus=[device.index])
        )
        group.count += 1
    return list(groups.values())
