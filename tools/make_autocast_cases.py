#!/usr/bin/env python3
"""Writes training steps of PyTorch in float64 and how far its autocast to bfloat16 is from them, for test_autocast.

    tools/make_autocast_cases.py tests/data/autocast [--seed 1]

Needs torch and torchvision, as make_parity_cases.py, whose spec and names these are, with float32 parameters. All steps
are from the same parameters. Of all of them, one after the other, a file has

    pixels, labels      images are (pixels - 128) / 64, which bfloat16 holds
    stepK.mask.I        as in make_parity_cases.py
    logits, loss        float64's, stored as float32
    grad.NAME           the same, of the steps that have one: a row a step, of at most 32 elements of the gradient
    error.NAME          of logits, loss and each gradient so: |a - b| / |b|, a autocast's, b float64's, as vectors

where autocast is `torch.autocast("cpu", dtype=torch.bfloat16)` on a network in float32. One step's error of a gradient of
few elements is chance; of 16 steps together it is less so.
"""
import argparse
import json
import math
import pathlib

import torch
import torch.nn.functional as F

from make_parity_cases import complete_spec, make_masks, make_model, mask_tensors, state_tensors
from parity_families import CONVNEXT, EFFICIENTNET, EFFICIENTNET_V2, MB, REG, REGNET, stages
from safetensors_file import write_safetensors

RESNET = dict(planes=[8, 16], scaling="train", extent=8)
CONVNEXT = dict(CONVNEXT, samples=8, extent=16, stages=stages("channels num_layers", (8, 1), (16, 2)))
REGNET = dict(REGNET, se_ratio=1.0, extent=8, stem_width=8, stages=stages(
    REG, (1, 8, 8, 1.0, 1), (2, 16, 8, 1.0, 2)))
CASES = {
    "resnet_plain": dict(RESNET, block="basic", method="none"),
    "resnet_sample": dict(RESNET, planes=[4, 8], stem="imagenet", extent=16),
    "efficientnet_sample": dict(EFFICIENTNET, extent=8, last_channel=32, stages=stages(
        MB, ("mbconv", 1, 3, 1, 8, 8, 2), ("mbconv", 4, 5, 2, 8, 12, 2))),
    "efficientnet_v2_block": dict(EFFICIENTNET_V2, extent=8, last_channel=32, method="block", stages=stages(
        MB, ("fused_mbconv", 1, 3, 1, 8, 8, 2), ("fused_mbconv", 2, 3, 2, 8, 12, 1), ("mbconv", 4, 3, 1, 12, 12, 1))),
    "convnext_sample": CONVNEXT,
    "regnet_x_plain": dict(REGNET, se_ratio=None, method="none"),
    "regnet_y_survivors": dict(REGNET, compute="survivors"),
}


def draw_batch(spec, class_grids):
    """Images as bytes, and labels. They are smooth and alike within a class, so that gradients of samples and pixels add
    up: of noise they cancel out, and of what is left rounding that turns signs before a ReLU changes a fifth."""
    labels = torch.randint(spec["classes"], (spec["samples"],))
    grids = class_grids[labels] + 0.5 * torch.randn(spec["samples"], *class_grids.shape[1:])
    x = F.interpolate(grids, size=(spec["extent"], spec["extent"]), mode="bilinear")
    return (128 + 96 * x).clamp(0, 255).to(torch.uint8), labels


def some_of(gradient):
    """At most 32 elements: every one, or every so many, by a stride that meets all positions of a kernel."""
    stride = -(-gradient.numel() // 32)
    while math.gcd(stride, gradient.numel()) > 1:
        stride += 1
    return gradient.flatten()[::stride]


def add_step(results, model, x, labels, masks, autocast):
    """Appends what one step gives to results, by name; x and the parameters in the type that it computes in."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(x, masks)
        loss = F.cross_entropy(logits, labels)
    loss.backward()
    step = {"logits": logits, "loss": loss}
    step.update({"grad." + name: some_of(p.grad) for name, p in model.named_parameters() if p.grad is not None})
    for name, tensor in step.items():
        results.setdefault(name, []).append(tensor.detach().double())


def write_case(path, **changes):
    spec = complete_spec(**{"classes": 10, "samples": 16, "steps": 16, "dtype": "F32", **changes})
    single = make_model(spec)
    double = make_model(spec).double()
    double.load_state_dict(single.state_dict())
    tensors = state_tensors(single)
    class_grids = torch.randn(spec["classes"], 3, 4, 4)
    batches, theirs, expected = [], {}, {}
    for step in range(spec["steps"]):
        pixels, labels = draw_batch(spec, class_grids)
        batches.append((pixels, labels))
        masks = make_masks(spec, step, spec["samples"])
        tensors.update(mask_tensors(spec, step, masks))
        x = (pixels.double() - 128) / 64
        add_step(expected, double, x, labels, masks, autocast=False)
        add_step(theirs, single, x.float(), labels, masks, autocast=True)
    theirs, expected = ({name: torch.stack(rows) for name, rows in one.items()} for one in (theirs, expected))
    errors = {name: ((theirs[name] - b).norm() / b.norm()).reshape(1) for name, b in expected.items()}
    tensors.update(zip(("pixels", "labels"), map(torch.cat, zip(*batches))))
    tensors.update({name: tensor.float() for name, tensor in expected.items()})
    tensors.update({"error." + name: error for name, error in errors.items()})
    spec["torch"] = torch.__version__
    write_safetensors(path, tensors, {"kind": "autocast", "spec": json.dumps(spec)})
    gradients = torch.cat([error for name, error in errors.items() if name.startswith("grad.")])
    print(f"{path.stem}: autocast's error: logits {errors['logits'].item():.4f}, median of gradients "
          f"{gradients.median().item():.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name, changes in CASES.items():
        torch.manual_seed(arguments.seed)
        write_case(arguments.directory / f"{name}.safetensors", **changes)
