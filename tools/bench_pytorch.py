#!/usr/bin/env python3
"""PyTorch's side of the comparison: one training step or evaluation pass, run as often as asked.

    tools/bench_pytorch.py train_step/resnet50/none/batch:16/size:224 [--format channels_last] [--threads N] [--compile]
    tools/bench_pytorch.py eval_bf16/cifar_resnet20/batch:128/size:32 [--runtime openvino]

Rows of bfloat16 are run under torch.autocast. OpenVINO and ONNX Runtime evaluate what PyTorch's model is converted to.

Speaks as `sd_bench --serve` does: prints the runs of a cycle and the images of a run when it is ready, then, for every
number on the standard input, runs that often and prints the seconds. With --peak-memory it runs a few times and prints
the peak resident memory in bytes, and what of it the interpreter and its libraries held before there was a network.
Needs torch and torchvision; --runtime needs openvino, or onnxruntime and onnx.
"""
import argparse
import importlib.metadata
import json
import re
import sys
import tempfile
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


class Row:
    """What a benchmark's name says."""

    def __init__(self, name):
        fields = re.fullmatch(r"(?:(?P<train>train_step)|eval)(?P<bf16>_bf16)?/(?P<model>\w+)(?(train)/none)"
                              r"/batch:(?P<batch>\d+)/size:(?P<size>\d+)", name)
        if not fields:
            sys.exit(f"bench_pytorch.py: got {name}, expected train_step/<model>/none/... or eval/<model>/..., or the "
                     "same of train_step_bf16 or eval_bf16")
        self.trains, self.is_bf16 = bool(fields["train"]), bool(fields["bf16"])
        self.batch, self.size = int(fields["batch"]), int(fields["size"])
        cifar = re.fullmatch(r"cifar_resnet(\d+)", fields["model"])
        self.classes = 10 if cifar else 1000
        torch.manual_seed(0)
        self.model = CifarResNet(int(cifar[1])) if cifar else getattr(torchvision.models, fields["model"])()
        self.model.train(self.trains)

    def images(self):
        return torch.rand(self.batch, 3, self.size, self.size).mul(2).sub(1)


def pytorch_runs(row, memory_format, compiled):
    """A function that runs a row as often as it is told: in float, or in bfloat16 by autocast."""
    model = row.model.to(memory_format=memory_format)
    images = row.images().contiguous(memory_format=memory_format)
    labels = torch.arange(row.batch) % row.classes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    network = torch.compile(model) if compiled else model
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=row.is_bf16)

    def train(runs):
        for _ in range(runs):
            optimizer.zero_grad()
            with autocast:
                loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()

    def evaluate(runs):
        with torch.inference_mode(), autocast:  # once for all runs: autocast keeps the weights that it has rounded
            for _ in range(runs):
                network(images)

    return train if row.trains else evaluate


def openvino_runs(row, threads):
    """The same by OpenVINO, which evaluates."""
    import openvino

    images = row.images()
    network = openvino.convert_model(row.model, example_input=images, input=list(images.shape))
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if row.is_bf16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    request = openvino.compile_model(network, "CPU", settings).create_infer_request()

    def evaluate(runs):
        for _ in range(runs):
            request.infer([images.numpy()], share_inputs=True, share_outputs=True)

    return evaluate


def onnxruntime_runs(row, threads):
    """The same by ONNX Runtime, which evaluates in float."""
    import onnxruntime

    images = row.images()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        torch.onnx.export(row.model, (images,), file.name, dynamo=False)
        session = onnxruntime.InferenceSession(file.name, settings, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: images.numpy()}

    def evaluate(runs):
        for _ in range(runs):
            session.run(None, inputs)

    return evaluate


def make_runs(row, arguments):
    """A function that runs a row as often as it is told, by the chosen runtime."""
    if arguments.runtime == "pytorch":
        memory_format = torch.contiguous_format if arguments.format == "contiguous" else torch.channels_last
        return pytorch_runs(row, memory_format, arguments.compile)
    if row.trains or (row.is_bf16 and arguments.runtime == "onnxruntime"):
        sys.exit(f"bench_pytorch.py: --runtime {arguments.runtime}: got {arguments.name}, expected an evaluation that "
                 "it has: OpenVINO in float and bfloat16, ONNX Runtime in float")
    return {"openvino": openvino_runs, "onnxruntime": onnxruntime_runs}[arguments.runtime](row, arguments.threads)


def versions():
    """{package: version, or None where it is missing}"""
    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {"PyTorch": torch.__version__, "torchvision": torchvision.__version__,
            **{package: version(package) for package in ("openvino", "onnxruntime", "onnx")}}


def resident_memory(field):
    """VmRSS, of this moment, or VmHWM, the most so far, in bytes."""
    with open("/proc/self/status") as status:
        return int(re.search(field + r":\s*(\d+) kB", status.read())[1]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="name of the benchmark")
    parser.add_argument("--runtime", choices=["pytorch", "openvino", "onnxruntime"], default="pytorch",
                        help="what evaluates the model (%(default)s)")
    parser.add_argument("--format", choices=["contiguous", "channels_last"], default="contiguous",
                        help="of PyTorch's tensors (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="0: the runtime's choice")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--peak-memory", action="store_true")
    parser.add_argument("--versions", action="store_true", help="print the packages' versions as JSON")
    arguments = parser.parse_args()
    if arguments.versions:
        print(json.dumps(versions()))
        return
    if arguments.name is None:
        parser.error("a name is needed")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    libraries = resident_memory("VmRSS")
    row = Row(arguments.name)
    run = make_runs(row, arguments)
    run(3 if arguments.compile else 2)
    if arguments.peak_memory:
        print(resident_memory("VmHWM"), libraries)
        return
    print(1, row.batch, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
