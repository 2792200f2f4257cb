"""Devices: detection, selection by the server, placement of models, and sessions on them.

    --device, instance_group  ->  choice, placement  ->  DeviceConfig  ->  Session (CPU) | LaneSession (CUDA)

`driver` and `libraries` query the machine; no module needs a GPU to be imported.
"""
