#!/usr/bin/env python3
"""Writes small cases that PyTorch computed, for sd_parity and the tests.

    tools/make_parity_cases.py tests/data/parity [--seed 1]

Needs torch and torchvision (Debian: python3-torch python3-torchvision). One case is one safetensors file. Its metadata
hold

    kind  model | kernel
    spec  JSON: the settings. Of a kernel `op` and its options; of a model its build, classes, method, compute,
          scaling, distribution, drop_rate, drop_rates (of every block), mode, steps, label_smoothing, dtype and no_grad
          (the parameters without a gradient after step 0), optimizer (sgd if absent, adamw, rmsprop, rmsprop_tf) with
          lr, weight_decay and momentum, nesterov | betas, eps | alpha, eps, momentum, no_decay (names of parameters
          without weight decay), max_norm (of the gradients, cut to it before each step), ema_decay (of averages that
          begin as the start values)
          Of another family than ResNet: family, stages, bn_eps, bn_momentum and what parity_families.py has beside, and
          shortcuts, for each block whether it has one; masks are of those that have

and its tensors are, NCHW and OIHW as in PyTorch,

    kernel  x, target, dy, parameters, buffers and what comes of them: y, dx, loss, gradients under d and the
            parameter's name, buffers under NAME_after
    model   param.NAME, buffer.NAME           before the first step
            stepK.x, stepK.labels             the batch of step K
            stepK.mask.I                      which samples pass the branch of block I in step K, 0 or 1
            logits, dx, grad.NAME, buffer_after.NAME      of step 0
            losses, param_after.NAME          of all steps; the parameters after the last one, if there are several
            ema_after.NAME                    averages of parameters and floating buffers, if there is an ema_decay
"""
import argparse
import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.convnext import CNBlock, ConvNeXt, LayerNorm2d
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import SqueezeExcitation

import parity_families
from safetensors_file import write_safetensors

DTYPES = {"F64": torch.float64, "F32": torch.float32}


def save(path, kind, spec, tensors):
    write_safetensors(path, tensors, {"kind": kind, "spec": json.dumps(spec)})


# ------------------------------------------------------------------------------------------------------------- models

class PadShortcut(nn.Module):
    """Average pooling and zero channels (G. Huang et al., 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return torch.cat([x, x.new_zeros(x.shape[0], self.channels - x.shape[1], *x.shape[2:])], dim=1)


class StochasticBlock(nn.Module):
    """A block of torchvision whose branch is dropped as a mask says."""

    def __init__(self, block, spec, rate):
        super().__init__()
        self.block, self.spec, self.rate, self.mask = block, spec, rate, None

    def branch(self, x):
        x = F.relu(self.block.bn1(self.block.conv1(x)))
        x = self.block.bn2(self.block.conv2(x))
        return self.block.bn3(self.block.conv3(F.relu(x))) if isinstance(self.block, Bottleneck) else x

    def forward(self, x):
        has_shortcut = self.block.downsample is not None
        shortcut = self.block.downsample(x) if has_shortcut else x
        method, train_scaling = self.spec["method"], self.spec["scaling"] == "train"
        if method == "none":
            return F.relu(shortcut + self.branch(x))
        if not self.training:
            return F.relu(shortcut + (1.0 if train_scaling else 1.0 - self.rate) * self.branch(x))
        scale = 1.0 / (1.0 - self.rate) if train_scaling and self.rate < 1 else 1.0
        if method == "block":
            if not self.mask.any():
                return F.relu(shortcut) if has_shortcut else x
            return F.relu(shortcut + scale * self.branch(x))
        if self.spec["compute"] == "survivors":
            kept = self.mask.nonzero().flatten()
            if len(kept) == 0:
                return F.relu(shortcut)
            return F.relu(shortcut.index_add(0, kept, scale * self.branch(x[kept])))
        return F.relu(shortcut + scale * self.mask.to(x.dtype)[:, None, None, None] * self.branch(x))


class Network(nn.Module):
    """torchvision's ResNet, of any number of stages."""

    def __init__(self, spec):
        super().__init__()
        planes, channels = spec["planes"], spec["planes"][0]
        kind = {"basic": BasicBlock, "bottleneck": Bottleneck}[spec["block"]]
        width = {} if kind is BasicBlock else {"groups": spec["groups"], "base_width": spec["width_per_group"]}
        is_imagenet = spec["stem"] == "imagenet"
        self.conv1 = nn.Conv2d(3, channels, 7 if is_imagenet else 3, 2 if is_imagenet else 1, 3 if is_imagenet else 1,
                               bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, 2, 1) if is_imagenet else nn.Identity()
        self.stochastic, rates = [], iter(spec["drop_rates"])
        for stage, (count, plane) in enumerate(zip(spec["layers"], planes)):
            blocks, out = [], plane * kind.expansion
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                if spec["shortcut"] == "pad" and stride > 1:
                    downsample = PadShortcut(out)
                elif stride > 1 or channels != out:
                    downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                else:
                    downsample = None
                blocks.append(kind(channels, plane, stride, downsample, **width))
                # In a list: names stay torchvision's.
                self.stochastic.append(StochasticBlock(blocks[-1], spec, next(rates)))
                channels = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, spec["classes"])

    def train(self, mode=True):
        for block in self.stochastic:
            block.train(mode)
        return super().train(mode)

    def forward(self, x, masks):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for block, mask in zip(self.stochastic, masks):
            block.mask = mask
            x = block(x)
        return self.fc(x.mean((2, 3)))


def drop_rates(distribution, rate, blocks):
    return {"uniform": [rate for _ in range(blocks)],
            "linear": [rate * i / (blocks - 1) if blocks > 1 else rate for i in range(blocks)],
            "linear_huang": [rate * (i + 1) / blocks for i in range(blocks)],
            "linear_efficientnet": [rate * i / blocks for i in range(blocks)]}[distribution]


def draw_values(model):
    """Values that are neither 0 nor 1 for norms, so that no mistake hides behind them, and a gain near 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in [(module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5),
                                      (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 1.5)]:
                nn.init.uniform_(tensor, low, high)
        elif isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        elif isinstance(module, CNBlock):
            nn.init.uniform_(module.layer_scale, 0.5, 1.5)
        elif isinstance(model, (CNBlock, ConvNeXt)) and isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            nn.init.uniform_(module.bias, -0.5, 0.5)


class RMSpropTF(torch.optim.Optimizer):
    """TensorFlow's: epsilon below the root, mean square starts at one, learning rate inside the momentum."""

    def __init__(self, params, lr, alpha, eps, momentum, weight_decay):
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                square, velocity = self.state[p].setdefault("buffers", (torch.ones_like(p), torch.zeros_like(p)))
                gradient = p.grad + group["weight_decay"] * p
                square += (1 - group["alpha"]) * (gradient ** 2 - square)
                velocity *= group["momentum"]
                velocity += group["lr"] * gradient / torch.sqrt(square + group["eps"])
                p -= velocity


OPTIMIZERS = {"sgd": (torch.optim.SGD, ("lr", "momentum", "weight_decay", "nesterov")),
              "adamw": (torch.optim.AdamW, ("lr", "betas", "eps", "weight_decay")),
              "rmsprop": (torch.optim.RMSprop, ("lr", "alpha", "eps", "momentum", "weight_decay")),
              "rmsprop_tf": (RMSpropTF, ("lr", "alpha", "eps", "momentum", "weight_decay"))}


def make_optimizer(model, spec):
    kind, settings = OPTIMIZERS[spec.get("optimizer", "sgd")]
    no_decay = spec.get("no_decay", [])
    named = list(model.named_parameters())
    groups = [{"params": [p for name, p in named if name not in no_decay]}]
    if no_decay:
        groups.append({"params": [p for name, p in named if name in no_decay], "weight_decay": 0.0})
    return kind(groups, **{name: spec[name] for name in settings})


def complete_spec(**changes):
    """The settings of a model: those given, and what they leave open."""
    spec = dict(block="bottleneck", stem="cifar", layers=[1, 1], planes=[2, 3], groups=1, width_per_group=64,
                shortcut="", classes=3, method="sample", compute="all", scaling="inference",
                distribution="linear_huang", drop_rate=0.5, mode="train", steps=1, lr=0.1, momentum=0.9,
                weight_decay=0.0, nesterov=False, label_smoothing=0.0, dtype="F64")
    spec.update(changes)
    spec.setdefault("extent", 17 if spec["stem"] == "imagenet" else 6)
    blocks = parity_families.block_count(spec) if "family" in spec else sum(spec["layers"])
    spec["drop_rates"] = drop_rates(spec["distribution"], spec["drop_rate"], blocks)
    return spec


def make_model(spec):
    """The network of a spec, with drawn values in its type and mode."""
    model = parity_families.NETWORKS[spec["family"]](spec) if "family" in spec else Network(spec)
    draw_values(model)
    return model.to(DTYPES[spec["dtype"]]).train(spec["mode"] == "train")


def make_masks(spec, step, samples):
    """Of every block another sample is dropped, or of every other step the whole block; at rate 1 all are."""
    masks = [torch.ones(samples, dtype=torch.int64) for _ in spec["drop_rates"]]
    for i, mask in enumerate(masks):
        if spec["drop_rate"] == 1:
            mask[:] = 0
        elif spec["method"] == "block":
            mask[:] = (i + step) % 2
        else:
            mask[(i + step) % samples] = 0
    return masks


def mask_tensors(spec, step, masks):
    """The masks of blocks that have a shortcut, by name."""
    has_shortcut = spec.get("shortcuts", [True] * len(masks))
    return {f"step{step}.mask.{i}": mask for i, mask in enumerate(masks) if has_shortcut[i]}


def state_tensors(model):
    tensors = {"param." + name: p.detach().clone() for name, p in model.named_parameters()}
    tensors.update({"buffer." + name: b.clone() for name, b in model.named_buffers()})
    return tensors


def write_model(path, **changes):
    spec, samples = complete_spec(**changes), 4
    extent, model = spec["extent"], make_model(spec)
    tensors = state_tensors(model)
    if spec.get("no_decay") == "norms_and_biases":
        spec["no_decay"] = [name for name, p in model.named_parameters() if p.dim() == 1]
    optimizer = make_optimizer(model, spec)
    averages = {name: v.clone() for name, v in model.state_dict().items() if v.is_floating_point()}
    losses = []
    for step in range(spec["steps"]):
        x = torch.randn(samples, 3, extent, extent, dtype=DTYPES[spec["dtype"]], requires_grad=True)
        labels = torch.randint(spec["classes"], (samples,))
        masks = make_masks(spec, step, samples)
        optimizer.zero_grad(set_to_none=True)
        logits = model(x, masks)
        loss = F.cross_entropy(logits, labels, label_smoothing=spec["label_smoothing"])
        loss.backward()
        losses.append(loss.detach())
        tensors.update({f"step{step}.x": x, f"step{step}.labels": labels})
        tensors.update(mask_tensors(spec, step, masks))
        if step == 0:
            tensors.update(logits=logits, dx=x.grad)
            tensors.update({"grad." + n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            tensors.update({"buffer_after." + n: b.clone() for n, b in model.named_buffers()})
            spec["no_grad"] = [n for n, p in model.named_parameters() if p.grad is None]
        if "max_norm" in spec:
            nn.utils.clip_grad_norm_(model.parameters(), spec["max_norm"])
        optimizer.step()
        if "ema_decay" in spec:
            for name, average in averages.items():
                average.lerp_(model.state_dict()[name], 1.0 - spec["ema_decay"])
    tensors["losses"] = torch.stack(losses)
    if spec["steps"] > 1:
        tensors.update({"param_after." + name: p for name, p in model.named_parameters()})
    if "ema_decay" in spec:
        tensors.update({"ema_after." + name: average for name, average in averages.items()})
    save(path, "model", spec, tensors)


def write_models(directory):
    write_cases(directory, {
        "plain": dict(method="none"),
        "sample": dict(),
        "sample_eval": dict(mode="eval"),
        "sample_survivors_train_scaling": dict(compute="survivors", scaling="train"),
        "sample_rate_one": dict(distribution="uniform", drop_rate=1.0, scaling="train"),
        "sample_survivors_rate_one": dict(distribution="uniform", drop_rate=1.0, compute="survivors"),
        "block_train_scaling": dict(method="block", scaling="train"),
        "block_pad_shortcut": dict(method="block", block="basic", shortcut="pad"),
        "sample_pad_shortcut_odd": dict(block="basic", shortcut="pad", extent=5),
        "imagenet_stem": dict(stem="imagenet", distribution="linear"),
        "groups": dict(groups=2, width_per_group=32, planes=[4, 6]),
        "float": dict(dtype="F32", label_smoothing=0.1),
        "sgd_sample": dict(steps=3, weight_decay=0.01, block="basic"),
        "sgd_block_nesterov": dict(steps=3, weight_decay=0.01, nesterov=True, method="block", block="basic"),
    })


def write_optimizers(directory):
    """What acts on the parameters of a run. With `block` some have no gradient in some steps, which no step counts."""
    common = dict(steps=4, block="basic", weight_decay=0.05)
    rmsprop = dict(common, lr=0.01, alpha=0.9, momentum=0.9)
    write_cases(directory, {
        "adamw_block": dict(common, optimizer="adamw", lr=0.01, betas=[0.9, 0.99], eps=1e-8, method="block"),
        "adamw_no_decay_averaged": dict(common, optimizer="adamw", lr=0.01, betas=[0.8, 0.999], eps=1e-6,
                                        no_decay="norms_and_biases", ema_decay=0.9),
        "rmsprop_block": dict(rmsprop, optimizer="rmsprop", eps=0.0316, method="block"),
        "rmsprop_tf_block_averaged": dict(rmsprop, optimizer="rmsprop_tf", eps=1e-3, method="block", ema_decay=0.6,
                                          no_decay="norms_and_biases"),
        "sgd_clipped": dict(common, max_norm=0.5),
    })


def write_convnext(directory):
    # Far from zero, where a variance by squares would cancel.
    x = 1000 + torch.randn(2, 5, 3, 4, dtype=torch.float64)
    write_layer(directory / "layer_norm2d.safetensors", dict(op="layer_norm2d", eps=1e-6), LayerNorm2d(5, eps=1e-6), x)
    write_layer(directory / "cn_block.safetensors", dict(op="cn_block", channels=5), CNBlock(5, 1.0, 0.0), x)
    write_layer(directory / "conv2d_patches.safetensors",
                dict(op="conv2d", kernel=2, stride=2, padding=0, dilation=1, groups=1, bias=True),
                nn.Conv2d(5, 3, 2, 2), x)


def write_blocks(directory):
    """A depthwise convolution, squeeze-and-excitation, and blocks that have them."""
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    write_kernel(directory / "conv2d_depthwise.safetensors",
                 dict(op="conv2d", kernel=5, stride=2, padding=2, dilation=1, groups=4),
                 {"x": x.clone(), "weight": torch.randn(4, 1, 5, 5, dtype=torch.float64)},
                 lambda x, weight: F.conv2d(x, weight, None, 2, 2, 1, 4))
    write_layer(directory / "squeeze_excitation.safetensors",
                dict(op="squeeze_excitation", squeeze_channels=2, activation="silu", scale_activation="sigmoid"),
                SqueezeExcitation(4, 2, activation=nn.SiLU), x)
    norm = dict(bn_eps=1e-3, bn_momentum=0.1)
    for block in ("mbconv", "fused_mbconv"):
        settings = dict(expand_ratio=2, kernel=3, stride=1, input_channels=4, out_channels=4)
        write_layer(directory / f"{block}.safetensors", dict(settings, op=block, **norm),
                    parity_families.mb_block(block, settings, norm), x)
    settings = dict(width_in=4, width_out=6, stride=2, group_width=3, bottleneck_multiplier=1.0, se_ratio=0.25)
    write_layer(directory / "reg_block.safetensors", dict(settings, op="reg_block", **norm),
                ResBottleneckBlock(*list(settings.values())[:3], parity_families.batch_norm(norm), nn.ReLU,
                                   *list(settings.values())[3:]), x)


def write_cases(directory, cases):
    for name, changes in cases.items():
        write_model(directory / f"model_{name}.safetensors", **changes)


# ------------------------------------------------------------------------------------------------------------ kernels

def write_kernel(path, spec, inputs, compute):
    """`compute` maps the inputs to the output; gradients are taken for a random dy."""
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    y = compute(**inputs)
    dy = torch.randn_like(y)
    y.backward(dy)
    tensors = {**inputs, "y": y, "dy": dy}
    tensors.update({"d" + name: tensor.grad for name, tensor in inputs.items()})
    save(path, "kernel", spec, tensors)


def write_layer(path, spec, layer, x):
    """A layer or a block, forward and backward."""
    draw_values(layer)
    layer.double()
    x = x.clone().requires_grad_()
    tensors = {"x": x, **{name: tensor.clone() for name, tensor in layer.state_dict().items()}}
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    tensors.update({"y": y, "dy": dy, "dx": x.grad, **{"d" + name: p.grad for name, p in layer.named_parameters()}})
    tensors.update({name + "_after": b for name, b in layer.named_buffers() if b.is_floating_point()})
    save(path, "kernel", spec, tensors)


def write_kernels(directory):
    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    for name, (kernel, stride, padding, dilation, groups) in {
            "1x1": (1, 1, 0, 1, 1), "3x3_stride": (3, 2, 1, 1, 1), "5x5_dilation": (5, 1, 3, 2, 1),
            "groups": (3, 3, 2, 1, 3)}.items():
        spec = dict(op="conv2d", kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
        write_kernel(directory / f"conv2d_{name}.safetensors", spec,
                     {"x": randn(2, 3, 9, 7), "weight": randn(6, 3 // groups, kernel, kernel)},
                     lambda x, weight: F.conv2d(x, weight, None, stride, padding, dilation, groups))
    write_kernel(directory / "max_pool2d.safetensors", dict(op="max_pool2d", kernel=3, stride=2, padding=1),
                 {"x": randn(2, 3, 8, 7)}, lambda x: F.max_pool2d(x, 3, 2, 1))
    write_kernel(directory / "avg_pool2d.safetensors", dict(op="avg_pool2d", kernel=2, stride=2),
                 {"x": randn(2, 3, 7, 6)}, lambda x: F.avg_pool2d(x, 2, 2))
    for name, (kernel, stride, padding, count_include_pad) in {
            "ceil": (2, 2, 0, False), "ceil_padding": (3, 2, 1, False), "ceil_counts_padding": (3, 3, 1, True)}.items():
        spec = dict(op="avg_pool2d", kernel=kernel, stride=stride, padding=padding, ceil_mode=True,
                    count_include_pad=count_include_pad)
        write_kernel(directory / f"avg_pool2d_{name}.safetensors", spec, {"x": randn(2, 3, 7, 6)},
                     lambda x: F.avg_pool2d(x, kernel, stride, padding, True, count_include_pad))
    write_kernel(directory / "linear.safetensors", dict(op="linear"),
                 {"x": randn(4, 5), "weight": randn(3, 5), "bias": randn(3)}, F.linear)

    for mode in ("train", "eval"):
        layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.2).double().train(mode == "train")
        draw_values(layer)
        before = {name: tensor.clone() for name, tensor in layer.named_buffers()}
        x = (100 + 3 * randn(3, 3, 4, 5)).requires_grad_()
        y = layer(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        save(directory / f"batch_norm2d_{mode}.safetensors", "kernel",
             dict(op="batch_norm2d", train=mode == "train", eps=layer.eps, momentum=layer.momentum),
             {"x": x, "y": y, "dy": dy, "dx": x.grad, "weight": layer.weight, "bias": layer.bias,
              "dweight": layer.weight.grad, "dbias": layer.bias.grad,
              "running_mean": before["running_mean"], "running_var": before["running_var"],
              "running_mean_after": layer.running_mean, "running_var_after": layer.running_var})

    for name, soft, scale in [("labels", False, 900.0), ("probabilities", True, 1.0)]:
        x = (scale * randn(3, 4)).requires_grad_()
        target = torch.softmax(randn(3, 4), 1) if soft else torch.tensor([0, 3, 1])
        loss = F.cross_entropy(x, target, label_smoothing=0.1)
        loss.backward()
        save(directory / f"cross_entropy_{name}.safetensors", "kernel",
             dict(op="cross_entropy", label_smoothing=0.1, soft_targets=soft),
             {"x": x, "target": target, "loss": loss.reshape(1), "dx": x.grad})


def write_activations(directory):
    for name, function in {"relu6": F.relu6, "silu": F.silu, "hardswish": F.hardswish, "gelu": F.gelu,
                           "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid}.items():
        # Up to where exponentials overflow, and the kinks of those that have any.
        x = torch.cat([torch.linspace(-9, 9, 37), torch.tensor([-1000.0, -38.0, 38.0])]).double()
        write_kernel(directory / f"{name}.safetensors", dict(op=name), {"x": x}, lambda x: function(x))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    write_kernels(arguments.directory)
    write_models(arguments.directory)
    write_optimizers(arguments.directory)
    write_activations(arguments.directory)
    write_convnext(arguments.directory)
    write_cases(arguments.directory, parity_families.CASES)
    write_blocks(arguments.directory)
