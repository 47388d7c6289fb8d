#!/usr/bin/env python3
"""Turns a PyTorch checkpoint (.pth) with a state dict into a safetensors file that sd reads.

    tools/pth_to_safetensors.py resnet50.pth resnet50.safetensors

Takes a state dict, or a dictionary that holds one under "state_dict" or "model"; a prefix "module." of names is
dropped.
Needs torch.
"""
import argparse

import torch

from safetensors_file import write_safetensors


def state_dict_of(checkpoint):
    for key in ("state_dict", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    tensors = {name.removeprefix("module."): value for name, value in checkpoint.items()}
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise SystemExit(f"{name}: got {type(value).__name__}, expected a tensor; is this a state dict?")
    return tensors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    arguments = parser.parse_args()
    loaded = torch.load(arguments.checkpoint, map_location="cpu")
    write_safetensors(arguments.output, state_dict_of(loaded), {"format": "pt"})
