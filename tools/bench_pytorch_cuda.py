#!/usr/bin/env python3
"""PyTorch's training steps on a GPU, channels last, in the form of sd_bench_cuda.

    tools/bench_pytorch_cuda.py NETWORK bf16|tf32|float BATCH eager|compile|graph

NETWORK is torchvision's resnet50, efficientnet_b0, convnext_tiny or regnet_y_400mf, at 224 pixels and without its own
dropout and stochastic depth, or cifar_resnet110 at 32. bf16 is torch.autocast; graph starts each step as one CUDA
graph. Needs torch and torchvision with CUDA.
"""
import statistics
import sys

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from bench_pytorch import CifarResNet

NETWORKS = {
    "resnet50": torchvision.models.resnet50,
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(dropout=0.0, stochastic_depth_prob=0.0),
    "convnext_tiny": lambda: torchvision.models.convnext_tiny(stochastic_depth_prob=0.0),
    "regnet_y_400mf": torchvision.models.regnet_y_400mf,
    "cifar_resnet110": lambda: CifarResNet(110),
}


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


def images_per_second(model, batch, pixels, autocast, graph):
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


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in NETWORKS:
        sys.exit(f"bench_pytorch_cuda: got {' '.join(sys.argv[1:])}, expected what is said above:\n{__doc__}")
    network, precision, batch, variant = sys.argv[1:]
    if not torch.cuda.is_available():
        sys.exit("bench_pytorch_cuda: got no GPU that PyTorch can use, expected one")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(0)
    model = NETWORKS[network]()
    rate = images_per_second(torch.compile(model) if variant == "compile" else model, int(batch),
                             32 if network.startswith("cifar") else 224, precision == "bf16", variant == "graph")
    print(f"{f'{network}, {precision}, PyTorch {variant}':52} {rate:11.1f} images/s  batch {batch}, "
          f"PyTorch {torch.__version__}", flush=True)


if __name__ == "__main__":
    main()
