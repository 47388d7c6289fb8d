#!/usr/bin/env python3
"""Checks that a torchvision network's weights go into sd and back: saves a network with PyTorch, converts it, lets
sd_logits load it, compares logits, compares what sd saved with what it loaded, and loads that into PyTorch again.

    tools/check_torchvision_weights.py build/release/tools/sd_logits [--model resnet50] [--weights FILE.pth]

Without --weights the network has torchvision's random start weights, and statistics from a few training batches. Needs
torch and torchvision.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
import torchvision

from safetensors_file import read_safetensors, write_safetensors

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="sd_logits")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--weights", help="a .pth file of the model")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    build = getattr(torchvision.models, arguments.model)
    network = build(weights=None)
    if arguments.weights:
        network.load_state_dict(torch.load(arguments.weights, map_location="cpu", weights_only=True))
    else:
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(8, 3, 64, 64))  # in training mode: moves the running statistics
    network.eval()
    images = torch.randn(4, 3, 224, 224)
    with torch.no_grad():
        expected = network(images)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        torch.save(network.state_dict(), folder / "network.pth")
        subprocess.run([sys.executable, pathlib.Path(__file__).with_name("pth_to_safetensors.py"),
                        folder / "network.pth", folder / "network.safetensors"], check=True)
        write_safetensors(folder / "images.safetensors", {"images": images})
        subprocess.run([arguments.program, "--model", arguments.model, "--weights", folder / "network.safetensors",
                        "--images", folder / "images.safetensors", "--logits", folder / "logits.safetensors",
                        "--save", folder / "saved.safetensors"], check=True)
        logits = read_safetensors(folder / "logits.safetensors")["logits"]
        saved, loaded = read_safetensors(folder / "saved.safetensors"), network.state_dict()
    unchanged = saved.keys() == loaded.keys() and all(
        saved[name].dtype == loaded[name].dtype and torch.equal(saved[name], loaded[name]) for name in saved)
    again = build(weights=None, num_classes=expected.shape[1]).eval()
    again.load_state_dict(saved)
    with torch.no_grad():
        unchanged = unchanged and torch.equal(again(images), expected)
    error = ((logits - expected).abs().max() / expected.abs().max()).item()
    print(f"{arguments.model}: {len(saved)} tensors, {loaded.get('bn1.num_batches_tracked', 'no')} batches tracked; "
          f"largest logit {expected.abs().max():.3f}, largest error {error:.1e} of it; back in PyTorch "
          f"{'unchanged' if unchanged else 'CHANGED'}")
    sys.exit(0 if error <= 1e-4 and unchanged else 1)
