#!/usr/bin/env python3
"""Writes one step of PyTorch's DistributedDataParallel on two processes (gloo), for tests/mpi.

    tools/make_ddp_case.py tests/data/distributed_data_parallel.safetensors

Each process drops blocks of its own: one block is dropped by process 0 alone, one by process 1 alone, one by both.
Format as in make_parity_cases.py, with rankR.x, rankR.labels, rankR.mask.I, rankR.loss and rankR.buffer_after.NAME for
each process; grad.NAME are the averaged gradients, and no_grad names the parameters that no process has a gradient for.
"""
import argparse
import json
import os
import tempfile

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from make_parity_cases import Network, draw_values
from safetensors_file import write_safetensors

RANKS, SAMPLES = 2, 4
KEPT = [[1, 1, 0, 0, 1], [1, 0, 1, 0, 1]]  # by process and block
SPEC = dict(block="basic", stem="cifar", layers=[2, 3], planes=[2, 3], groups=1, width_per_group=64, shortcut="",
            classes=3, method="block", compute="all", scaling="inference", distribution="uniform", drop_rate=0.5,
            drop_rates=[0.5] * 5)


def train(rank, directory):
    distributed.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=RANKS)
    torch.manual_seed(1)
    model = Network(SPEC)
    draw_values(model)
    model.double().train()
    tensors = {"param." + name: p.detach().clone() for name, p in model.named_parameters()}
    tensors.update({"buffer." + name: b.clone() for name, b in model.named_buffers()})
    x = torch.randn(RANKS, SAMPLES, 3, 6, 6, dtype=torch.float64)[rank]
    labels = torch.randint(SPEC["classes"], (RANKS, SAMPLES))[rank]
    masks = [torch.full((SAMPLES,), kept) for kept in KEPT[rank]]
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    loss = F.cross_entropy(parallel(x, masks), labels)
    loss.backward()
    own = {"x": x, "labels": labels, "loss": loss.reshape(1), **{f"mask.{i}": mask for i, mask in enumerate(masks)},
           **{"buffer_after." + name: b for name, b in model.named_buffers()}}
    tensors.update({f"rank{rank}.{name}": tensor for name, tensor in own.items()})
    tensors.update({"grad." + name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    no_grad = [name for name, p in model.named_parameters() if p.grad is None]
    torch.save((tensors, no_grad), os.path.join(directory, str(rank)))
    distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        torch.multiprocessing.spawn(train, (temporary,), RANKS)
        (first, no_grad), (second, no_grad_of_second) = (
            torch.load(os.path.join(temporary, str(r))) for r in range(RANKS))
    assert no_grad == no_grad_of_second
    assert all(torch.equal(first[name], second[name]) for name in first if name in second)
    spec = dict(SPEC, ranks=RANKS, torch=torch.__version__, no_grad=no_grad)
    write_safetensors(arguments.file, {**first, **second},
                      {"kind": "distributed_data_parallel", "spec": json.dumps(spec)})
