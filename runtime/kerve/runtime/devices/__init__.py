"""What a model computes on: which devices there are, which of them a server takes, and how it uses them.

    --device, instance_group  ->  choice, placement  ->  DeviceConfig  ->  Session (CPU) | LaneSession (CUDA)

`driver` and `libraries` ask the machine; nothing here needs a GPU to be imported.
"""
