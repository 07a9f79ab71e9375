"""PyTorch's time for the layers of tests/unit/nn_train_bench.c: forward and backward, one thread.

    python bench/training_rows.py [batch]
"""

import sys
import time

import torch
from torch import nn

LAYERS = [
    ("fashion conv 1-16", nn.Conv2d(1, 16, 3, 1, 1, bias=True), (1, 28)),
    ("fashion conv 16-32 s2", nn.Conv2d(16, 32, 3, 2, 1), (16, 28)),
    ("fashion depthwise 32 s2", nn.Conv2d(32, 32, 3, 2, 1, groups=32), (32, 14)),
    ("fashion pointwise 32-64", nn.Conv2d(32, 64, 1), (32, 7)),
    ("fashion norm 16", nn.BatchNorm2d(16), (16, 28)),
    ("fashion norm 32", nn.BatchNorm2d(32), (32, 14)),
    ("fashion relu 16", nn.ReLU(), (16, 28)),
    ("fashion pool 64", nn.AdaptiveAvgPool2d(1), (64, 7)),
    ("fashion linear 64-10", nn.Linear(64, 10), (64, 0)),
    ("resnet20 conv 3-16", nn.Conv2d(3, 16, 3, 1, 1), (3, 32)),
    ("resnet20 conv 16", nn.Conv2d(16, 16, 3, 1, 1), (16, 32)),
    ("resnet20 conv 16-32 s2", nn.Conv2d(16, 32, 3, 2, 1), (16, 32)),
    ("resnet20 short 16-32 s2", nn.Conv2d(16, 32, 1, 2), (16, 32)),
    ("resnet20 conv 32", nn.Conv2d(32, 32, 3, 1, 1), (32, 16)),
    ("resnet20 conv 64", nn.Conv2d(64, 64, 3, 1, 1), (64, 8)),
    ("resnet20 norm 16", nn.BatchNorm2d(16), (16, 32)),
    ("resnet20 relu 16", nn.ReLU(), (16, 32)),
    ("mobile depthwise 96", nn.Conv2d(96, 96, 3, 1, 1, groups=96), (96, 28)),
    ("mobile depthwise 144 s2", nn.Conv2d(144, 144, 3, 2, 1, groups=144), (144, 28)),
    ("mobile pointwise 24-144", nn.Conv2d(24, 144, 1), (24, 28)),
    ("mobile pointwise 144-24", nn.Conv2d(144, 24, 1), (144, 28)),
    ("pool max 2", nn.MaxPool2d(2), (32, 28)),
    ("pool average 2", nn.AvgPool2d(2), (32, 28)),
]


def best_time(run, runs=101):
    """Seconds of the best run: a busy machine makes all but a few of them longer."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def bench(name, layer, shape, batch, memory_format):
    """One line: forward, and forward with backward less that."""
    channels, size = shape
    x = torch.randn(batch, channels, size, size) if size else torch.randn(batch, channels)
    if size:
        x = x.contiguous(memory_format=memory_format)
        layer = layer.to(memory_format=memory_format)
    x.requires_grad_(channels > 3)
    dy = torch.randn_like(layer(x))

    def both():
        y = layer(x)
        y.backward(dy)

    forward = best_time(lambda: layer(x))
    total = best_time(both)
    print(f"{name:24s} forward {forward * 1e6:9.1f} us  backward {(total - forward) * 1e6:9.1f} us")


def main():
    """The layers in channels-last, then in PyTorch's own layout."""
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    torch.set_num_threads(1)
    for memory_format in (torch.channels_last, torch.contiguous_format):
        print(f"batch {batch}, {memory_format}, torch {torch.__version__}")
        for name, layer, shape in LAYERS:
            bench(name, layer, shape, batch, memory_format)


if __name__ == "__main__":
    main()
