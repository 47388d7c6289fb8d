#!/usr/bin/env python3
"""Checks that a torchvision network's weights go into sd and back: saves a network with PyTorch, converts it, lets
sd_logits load it, compares logits, and compares what sd saved with what it loaded.

    tools/check_torchvision_weights.py build/release/tools/sd_logits [--model resnet50] [--weights FILE.pth]

Without --weights the network has random weights and running statistics. Needs torch and torchvision.
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
    network = getattr(torchvision.models, arguments.model)(weights=None).eval()
    if arguments.weights:
        network.load_state_dict(torch.load(arguments.weights, map_location="cpu"))
    else:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(4, 3, 224, 224)
    with torch.no_grad():
        expected = network(images)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        torch.save(network.state_dict(), folder / "network.pth")
        subprocess.run([sys.executable, pathlib.Path(__file__).with_name("pth_to_safetensors.py"), folder / "network.pth",
                        folder / "network.safetensors"], check=True)
        write_safetensors(folder / "images.safetensors", {"images": images})
        subprocess.run([arguments.program, "--model", arguments.model, "--weights", folder / "network.safetensors",
                        "--images", folder / "images.safetensors", "--logits", folder / "logits.safetensors",
                        "--save", folder / "saved.safetensors"], check=True)
        logits = read_safetensors(folder / "logits.safetensors")["logits"]
        saved, loaded = read_safetensors(folder / "saved.safetensors"), network.state_dict()
        unchanged = saved.keys() == loaded.keys() and all(torch.equal(saved[name], loaded[name]) for name in saved)
    error = ((logits - expected).abs().max() / expected.abs().max()).item()
    print(f"{arguments.model}: largest error of the logits {error:.1e} of the largest logit; saved again: "
          f"{'unchanged' if unchanged else 'CHANGED'}, {len(saved)} tensors")
    sys.exit(0 if error <= 1e-4 and unchanged else 1)
