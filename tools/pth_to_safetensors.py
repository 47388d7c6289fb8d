#!/usr/bin/env python3
"""Turns the weights in a PyTorch checkpoint (.pth) into a safetensors file that sd reads.

    tools/pth_to_safetensors.py resnet50.pth resnet50.safetensors

Takes a state dict, or finds one in dictionaries of dictionaries, as under "state_dict", "model" or "model_ema"; of
several, --key chooses. Names lose what PyTorch's wrappers add: "module." before them, "_orig_mod." anywhere; the count
"n_averaged" of an averaged model goes.

Nothing in the checkpoint is run: it is read with weights_only=True, and settings of training, such as an
argparse.Namespace, may be in it. One that holds other objects, such as a whole pickled module, needs
--run-its-code, which lets it run any code it has: for files that you trust alone.

Needs torch.
"""
import argparse
import collections
import pathlib
import pickle
import sys
import types

MODEL_KEYS = ("state_dict", "model", "model_state_dict", "net", "network", "weights", "model_ema", "state_dict_ema",
              "ema")
OTHER_KEYS = ("optimizer", "optimizer_state_dict", "optim", "lr_scheduler", "scheduler", "scaler")
# Objects without code of their own that checkpoints hold beside weights.
HARMLESS = [argparse.Namespace, types.SimpleNamespace, collections.defaultdict, dict, list, pathlib.PosixPath,
            pathlib.PurePosixPath]


def foreign_objects(path):
    """What the file holds that weights_only=True refuses, by name."""
    listing = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    try:
        names = sorted(listing(path)) if listing else []
        return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    except Exception:
        return ""


def load(path, run_its_code):
    """The checkpoint; ends the program in one line if it cannot be had."""
    if not pathlib.Path(path).is_file():
        raise SystemExit(f"{path}: got no such file, expected a PyTorch checkpoint")
    try:
        if run_its_code:
            return torch.load(path, map_location="cpu", weights_only=False)
        if hasattr(torch.serialization, "add_safe_globals"):
            torch.serialization.add_safe_globals(HARMLESS)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        objects = foreign_objects(path)
        if not objects and "GLOBAL" not in str(error) and "global" not in str(error):
            raise SystemExit(f"{path}: got no PyTorch checkpoint: {first_line(error)}") from None
        raise SystemExit(f"{path}: holds {objects or 'objects'}, which may run code when read: save "
                         "model.state_dict() instead, or add --run-its-code if you trust the file") from None
    except Exception as error:
        if "TorchScript" in str(error):
            raise SystemExit(f"{path}: a TorchScript archive: save torch.jit.load(FILE).state_dict() instead") from None
        raise SystemExit(f"{path}: got no PyTorch checkpoint that can be read here: {first_line(error)}") from None


def first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_state_dict(value):
    """Whether it is a dictionary of tensors by name, at least one; extra state of modules does not count."""
    values = [entry for name, entry in value.items() if not str(name).endswith("_extra_state")]
    return bool(values) and all(isinstance(name, str) for name in value) and all(
        isinstance(entry, torch.Tensor) for entry in values)


def find_state_dicts(value, path=()):
    """Every state dict in it by its keys, joined by dots; those of optimizers are passed over."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if not isinstance(value, dict) or "param_groups" in value:
        return {}
    if is_state_dict(value):
        return {".".join(path): value}
    found = {}
    for key, entry in value.items():
        if isinstance(key, str) and key not in OTHER_KEYS:
            found.update(find_state_dicts(entry, (*path, key)))
    return found


def choose(path, checkpoint, key):
    """The state dict that is wanted, and where it is."""
    found = find_state_dicts(checkpoint)
    if key is not None:
        if key not in found:
            raise SystemExit(f"{path}: --key: got {key}, expected one of {', '.join(filter(None, found)) or 'none'}")
        return key, found[key]
    if not found:
        held = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise SystemExit(f"{path}: got no weights of a model in it, but {held or 'nothing'}; expected a state dict")
    if len(found) == 1:
        return next(iter(found.items()))
    for wanted in MODEL_KEYS:
        for name in found:
            if name.split(".")[-1] == wanted:
                return name, found[name]
    raise SystemExit(f"{path}: got several state dicts: choose by --key one of {', '.join(found)}")


def unwrapped(name):
    """The name without the parts that DataParallel, AveragedModel and torch.compile add."""
    parts = [part for part in name.split(".")[:-1] if part != "_orig_mod"]
    while parts and parts[0] == "module":
        parts.pop(0)
    return ".".join([*parts, name.split(".")[-1]])


def weights_of(path, state_dict):
    """Tensors by the names that the plain module has."""
    tensors = {}
    for name, value in state_dict.items():
        own = unwrapped(name)
        if own == "n_averaged" or not isinstance(value, torch.Tensor):
            continue
        if own in tensors:
            raise SystemExit(f"{path}: {own}: got it twice, once as {name}, expected it once")
        if value.dtype not in NAMES or value.layout != torch.strided:
            raise SystemExit(f"{path}: {name}: got {value.dtype}, {value.layout}, expected a dense tensor of one of "
                             f"{', '.join(NAMES.values())}")
        tensors[own] = value
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    parser.add_argument("--key", help="where the state dict is, such as model_ema")
    parser.add_argument("--run-its-code", action="store_true", help="read objects of any kind, from a trusted file")
    arguments = parser.parse_args()
    checkpoint = load(arguments.checkpoint, arguments.run_its_code)
    key, state_dict = choose(arguments.checkpoint, checkpoint, arguments.key)
    tensors = weights_of(arguments.checkpoint, state_dict)
    if not tensors:
        raise SystemExit(f"{arguments.checkpoint}: got no weights of a model, expected a state dict")
    try:
        write_safetensors(arguments.output, tensors, {"format": "pt"})
    except OSError as error:
        raise SystemExit(f"{arguments.output}: {error.strerror}") from None
    print(f"{arguments.output}: {len(tensors)} tensors" + (f" of {key}" if key else ""))


if __name__ == "__main__":
    try:
        import torch

        from safetensors_file import NAMES, write_safetensors
    except ImportError as error:
        sys.exit(f"pth_to_safetensors.py: {error}; try: python3 -m pip install torch")
    main()
