#!/usr/bin/env python3
"""PyTorch's training steps on a GPU, channels last, in bfloat16 (autocast) and TF32: resnet50 eager and compiled, and
cifar_resnet110 eager with CUDA graphs off and on.

Prints images a second in the form of sd_bench_cuda. Needs torch and torchvision with CUDA.
"""
import statistics
import sys

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut of 2x2 average pooling and zero channels where the image shrinks."""

    def __init__(self, inputs, outputs):
        super().__init__()
        stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.more = outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.more))
        return F.relu(y + x)


def cifar_resnet110():
    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for planes in (16, 32, 64):
        for _ in range(18):
            layers.append(CifarBlock(channels, planes))
            channels = planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def graphed(step):
    """The step as one CUDA graph, as torch.cuda.graph's documentation does it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def images_per_second(model, batch, pixels, autocast, graph=False):
    model = model.cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x = torch.full((batch, 3, pixels, pixels), 0.5, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.ones(batch, dtype=torch.long, device="cuda")

    def train():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()

    step = graphed(train) if graph else train
    for _ in range(10):
        step()
    steps = 10  # follow each other without waiting, as in a run
    times = []
    for _ in range(3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return batch * steps / statistics.median(times) * 1e3


def row(name, value):
    print(f"PyTorch {torch.__version__}, {name:44} {value:12.1f} images/s", flush=True)


def main():
    if not torch.cuda.is_available():
        sys.exit("bench_pytorch_cuda: got no GPU that PyTorch can use, expected one")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    for precision, autocast in (("bf16", True), ("tf32", False)):
        resnet50 = torchvision.models.resnet50
        row(f"resnet50, {precision}, eager, batch 256", images_per_second(resnet50(), 256, 224, autocast))
        for graph in (False, True):
            name = f"cifar_resnet110, {precision}, eager, graph {'on' if graph else 'off'}, batch 128"
            row(name, images_per_second(cifar_resnet110(), 128, 32, autocast, graph))
        row(f"resnet50, {precision}, compile, batch 256",
            images_per_second(torch.compile(resnet50()), 256, 224, autocast))


if __name__ == "__main__":
    main()
