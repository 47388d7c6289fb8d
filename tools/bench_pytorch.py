#!/usr/bin/env python3
"""PyTorch's side of the comparison: one training step or evaluation pass, run as often as asked.

    tools/bench_pytorch.py train_step/resnet50/none/batch:16/size:224 [--format channels_last] [--threads N] [--compile]
    tools/bench_pytorch.py eval/cifar_resnet20/batch:128/size:32

Speaks as `sd_bench --serve` does: prints the runs of a cycle and the images of a run when it is ready, then, for every
number on the standard input, runs that often and prints the seconds. With --peak-memory it runs a few times and prints
the peak resident memory in bytes, and what of it the interpreter and its libraries held before there was a network.
Needs torch and torchvision.
"""
import argparse
import re
import sys
import time

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock


class PadShortcut(nn.Module):
    """Average pooling and zero channels (G. Huang et al., 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        x = F.avg_pool2d(x, 2)
        return F.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class CifarResNet(nn.Module):
    """The CIFAR network of basic blocks of depth 6n + 2 (K. He et al., section 4.2), as sd's cifar_resnet."""

    def __init__(self, depth):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for planes in (16, 32, 64):
            for i in range((depth - 2) // 6):
                halves = i == 0 and planes > 16
                blocks.append(BasicBlock(channels, planes, 2 if halves else 1, PadShortcut(planes) if halves else None))
                channels = planes
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def make_run(name, memory_format, compiled):
    """The function to run and the images of a run."""
    fields = re.fullmatch(r"(?:train_step/(?P<train>\w+)/none|eval/(?P<eval>\w+))"
                          r"/batch:(?P<batch>\d+)/size:(?P<size>\d+)", name)
    if not fields:
        sys.exit(f"bench_pytorch.py: got {name}, expected train_step/<model>/none/... or eval/<model>/...")
    model_name, batch, size = fields["train"] or fields["eval"], int(fields["batch"]), int(fields["size"])
    torch.manual_seed(0)
    cifar = re.fullmatch(r"cifar_resnet(\d+)", model_name)
    model = CifarResNet(int(cifar[1])) if cifar else getattr(torchvision.models, model_name)()
    model = model.to(memory_format=memory_format)
    images = torch.rand(batch, 3, size, size).mul(2).sub(1).contiguous(memory_format=memory_format)
    labels = torch.arange(batch) % (10 if cifar else 1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    model.train(bool(fields["train"]))
    network = torch.compile(model) if compiled else model

    def train_step():
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    def evaluate():
        with torch.inference_mode():
            network(images)

    return (train_step if fields["train"] else evaluate), batch


def resident_memory(field):
    """VmRSS, of this moment, or VmHWM, the most so far, in bytes."""
    with open("/proc/self/status") as status:
        return int(re.search(field + r":\s*(\d+) kB", status.read())[1]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="name of the benchmark")
    parser.add_argument("--format", choices=["contiguous", "channels_last"], default="contiguous")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--peak-memory", action="store_true")
    parser.add_argument("--versions", action="store_true", help="print the versions of PyTorch and torchvision")
    arguments = parser.parse_args()
    if arguments.versions:
        print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}")
        return
    if arguments.name is None:
        parser.error("a name is needed")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    libraries = resident_memory("VmRSS")
    memory_format = torch.contiguous_format if arguments.format == "contiguous" else torch.channels_last
    run, images = make_run(arguments.name, memory_format, arguments.compile)
    for _ in range(3 if arguments.compile else 2):
        run()
    if arguments.peak_memory:
        print(resident_memory("VmHWM"), libraries)
        return
    print(1, images, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
