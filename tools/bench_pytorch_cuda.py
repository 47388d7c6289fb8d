#!/usr/bin/env python3
"""PyTorch's training steps of resnet50 on a GPU, eager and compiled, in bfloat16 (autocast) and TF32, channels last.

Prints images a second in the form of sd_bench_cuda. Needs torch and torchvision with CUDA.
"""
import statistics
import sys

import torch
import torch.nn.functional as F
import torchvision

BATCH = 256


def images_per_second(model, autocast):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x = torch.full((BATCH, 3, 224, 224), 0.5, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.ones(BATCH, dtype=torch.long, device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()

    for _ in range(5):
        step()
    times = []
    for _ in range(20):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return BATCH / statistics.median(times) * 1e3


def main():
    if not torch.cuda.is_available():
        sys.exit("bench_pytorch_cuda: got no GPU that PyTorch can use, expected one")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    for precision, autocast in (("bf16", True), ("tf32", False)):
        for how in ("eager", "compile"):
            model = torchvision.models.resnet50().cuda().to(memory_format=torch.channels_last)
            if how == "compile":
                model = torch.compile(model)
            name = f"PyTorch {torch.__version__}, resnet50, {precision}, {how}, batch {BATCH}"
            print(f"{name:44}{images_per_second(model, autocast):12.1f} images/s", flush=True)


if __name__ == "__main__":
    main()
