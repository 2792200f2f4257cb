"""PyTorch on the GPU: its ResNet50 as an external baseline, and the device's peak performance."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from gpu_ways import Measured, timed

__all__ = ["peaks", "resnet50", "torch_resnet50", "usable"]

# Blocks and their width, by stage: He et al., "Deep Residual Learning for Image Recognition", table 1.
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
EXPANSION, CLASSES = 4, 100


def resnet50() -> Any:
    """Return ResNet50 as in Keras (version 1: the stride is in the first 1x1 convolution of a stage)."""
    from torch import nn

    def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> Any:
        padding = size // 2
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), nn.BatchNorm2d(outputs)
        )

    class Block(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            outputs = width * EXPANSION
            self.inner = nn.Sequential(
                convolution(inputs, width, 1, stride),
                nn.ReLU(inplace=True),
                convolution(width, width, 3),
                nn.ReLU(inplace=True),
                convolution(width, outputs, 1),
            )
            same = inputs == outputs and stride == 1
            self.short = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.inner(x) + self.short(x))

    blocks, inputs = [], 64
    for stage, (count, width) in enumerate(STAGES):
        for number in range(count):
            blocks.append(Block(inputs, width, 2 if stage and not number else 1))
            inputs = width * EXPANSION
    return nn.Sequential(
        convolution(3, 64, 7, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, CLASSES),
    )


def torch_resnet50(batches: list[int], seconds: float) -> Iterator[Measured]:
    """Measure channels_last, float16, compiled with CUDA graphs, including copies from and to the host."""
    torch = usable()
    if torch is None:
        raise RuntimeError("PyTorch, or a GPU that it can use, is not here")
    model = resnet50().half().cuda().eval().to(memory_format=torch.channels_last)
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False)
    for rows in batches:
        host = torch.rand((rows, 3, 224, 224)).to(memory_format=torch.channels_last).pin_memory()

        def call(host: Any = host) -> None:
            with torch.inference_mode():
                compiled(host.cuda(non_blocking=True).half()).float().cpu()

        for _ in range(3):  # compiles, warms, captures
            call()
        yield timed(call, rows, seconds)


def usable() -> Any:
    """Return PyTorch if it is installed and has a GPU, or None."""
    if find_spec("torch") is None:
        return None
    import torch

    return torch if torch.cuda.is_available() else None


def peaks() -> Mapping[str, float]:
    """Measure the device's peak rates: operations per second in each precision, and bytes per second of its
    memory and from the host; empty without PyTorch.
    """
    torch = usable()
    if torch is None:
        return {}
    found: dict[str, float] = {}
    size = 8192
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("float16", torch.float16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        left, right = (torch.randn((size, size), device="cuda", dtype=dtype) for _ in range(2))
        found[name] = 2 * size**3 / best(torch, partial(torch.matmul, left, right))
    block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    found["bytes"] = 2 * block.numel() / best(torch, block.clone)
    host = torch.empty(1 << 28, dtype=torch.uint8).pin_memory()
    found["host bytes"] = host.numel() / best(torch, lambda: host.cuda(non_blocking=True))
    return found


def best(torch: Any, call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few calls."""
    taken = []
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return min(taken)
