"""torchvision's EfficientNet, ConvNeXt and RegNet for make_parity_cases.py: small ones, with blocks dropped by masks."""
import functools

import torch.nn.functional as F
from torch import nn
from torchvision.models.convnext import CNBlock, CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import EfficientNet, FusedMBConv, FusedMBConvConfig, MBConv, MBConvConfig
from torchvision.models.regnet import BlockParams, RegNet, ResBottleneckBlock


def batch_norm(spec):
    return functools.partial(nn.BatchNorm2d, eps=spec["bn_eps"], momentum=spec["bn_momentum"])


def mb_config(block, input_channels, out_channels, **settings):
    """A stage with its widths as given, which torchvision would round to multiples of 8."""
    kind = MBConvConfig if block == "mbconv" else FusedMBConvConfig
    config = kind(input_channels=input_channels, out_channels=out_channels, **settings)
    config.input_channels, config.out_channels = input_channels, out_channels
    return config


def mb_block(block, settings, norm):
    """One block alone."""
    kind = MBConv if block == "mbconv" else FusedMBConv
    return kind(mb_config(block, **settings, num_layers=1), 0.0, batch_norm(norm))


class Masked:
    """Mixed into a network of torchvision: forward takes the masks of all blocks."""

    def make_stochastic(self, spec):
        kinds = (MBConv, FusedMBConv, CNBlock, ResBottleneckBlock)
        self.masks, blocks = [], [module for module in self.modules() if isinstance(module, kinds)]
        spec["shortcuts"] = [getattr(block, "use_res_connect", True) for block in blocks]
        if spec["method"] == "none":
            return
        for i, block in enumerate(blocks):
            if spec["shortcuts"][i]:
                block.forward = functools.partial(self.block_forward, block, i, spec)

    def block_forward(self, block, i, spec, x):
        is_regnet, rate, mask = isinstance(block, ResBottleneckBlock), spec["drop_rates"][i], self.masks[i]
        branch, join = (block.f, F.relu) if is_regnet else (block.block, lambda y: y)
        if isinstance(block, CNBlock):
            branch = lambda x: block.layer_scale * block.block(x)
        projection = block.proj if is_regnet else None
        shortcut = x if projection is None else projection(x)
        train_scaling = spec["scaling"] == "train"
        if not self.training:
            return join(shortcut + (1.0 if train_scaling else 1.0 - rate) * branch(x))
        scale = 1.0 / (1.0 - rate) if train_scaling and rate < 1 else 1.0
        if spec["method"] == "block":
            if not mask.any():
                return x if projection is None else join(shortcut)
            return join(shortcut + scale * branch(x))
        if spec["compute"] == "survivors":
            kept = mask.nonzero().flatten()
            return join(shortcut.index_add(0, kept, scale * branch(x[kept]))) if len(kept) else join(shortcut)
        return join(shortcut + scale * mask.to(x.dtype)[:, None, None, None] * branch(x))


class MaskedEfficientNet(Masked, EfficientNet):
    def __init__(self, spec):
        super().__init__([mb_config(**stage) for stage in spec["stages"]], dropout=0.0, stochastic_depth_prob=0.0,
                         num_classes=spec["classes"], norm_layer=batch_norm(spec), last_channel=spec["last_channel"])
        self.make_stochastic(spec)

    def forward(self, x, masks):
        self.masks = masks
        return super().forward(x)


class MaskedConvNeXt(Masked, ConvNeXt):
    def __init__(self, spec):
        widths, depths = ([stage[name] for stage in spec["stages"]] for name in ("channels", "num_layers"))
        super().__init__([*map(CNBlockConfig, widths, widths[1:] + [None], depths)], num_classes=spec["classes"])
        self.make_stochastic(spec)

    def forward(self, x, masks):
        self.masks = masks
        return super().forward(x)


class MaskedRegNet(Masked, RegNet):
    def __init__(self, spec):
        names = ["depth", "width", "group_width", "bottleneck_multiplier", "stride"]
        columns = [[stage[name] for stage in spec["stages"]] for name in names]
        depths, widths, groups, multipliers, strides = columns
        super().__init__(BlockParams(depths, widths, groups, multipliers, strides, se_ratio=spec["se_ratio"]),
                         num_classes=spec["classes"], stem_width=spec["stem_width"], norm_layer=batch_norm(spec))
        self.make_stochastic(spec)

    def forward(self, x, masks):
        self.masks = masks
        return super().forward(x)


def stages(names, *rows):
    return [dict(zip(names.split(), row)) for row in rows]


MB = "block expand_ratio kernel stride input_channels out_channels num_layers"
REG = "depth width group_width bottleneck_multiplier stride"
EFFICIENTNET = dict(family="efficientnet", distribution="linear_efficientnet", scaling="train", bn_eps=1e-3,
                    bn_momentum=0.01, last_channel=8, extent=9, stages=stages(
                        MB, ("mbconv", 1, 3, 1, 8, 8, 2), ("mbconv", 2, 5, 2, 8, 8, 2)))
EFFICIENTNET_V2 = dict(EFFICIENTNET, bn_momentum=0.1, stages=stages(
    MB, ("fused_mbconv", 1, 3, 1, 8, 8, 2), ("fused_mbconv", 2, 3, 2, 8, 8, 2), ("mbconv", 2, 3, 1, 8, 8, 1)))
CONVNEXT = dict(family="convnext", scaling="train", extent=13, stages=stages(
    "channels num_layers", (4, 1), (6, 2)))
REGNET = dict(family="regnet", distribution="linear", scaling="train", bn_eps=1e-5, bn_momentum=0.1, se_ratio=0.25,
              stem_width=4, extent=9, stages=stages(REG, (2, 6, 3, 1.0, 2), (2, 8, 4, 0.5, 1)))
CASES = {
    "efficientnet_plain": dict(EFFICIENTNET, method="none"),
    "efficientnet_sample": EFFICIENTNET,
    "efficientnet_block_rmsprop": dict(EFFICIENTNET, method="block", distribution="uniform", steps=2,
                                       optimizer="rmsprop", alpha=0.9, eps=0.0316, weight_decay=0.01),
    "efficientnet_v2_survivors": dict(EFFICIENTNET_V2, compute="survivors"),
    "efficientnet_v2_eval": dict(EFFICIENTNET_V2, scaling="inference", mode="eval"),
    "convnext_sample": CONVNEXT,
    "convnext_survivors_adamw": dict(CONVNEXT, compute="survivors", steps=3, optimizer="adamw", lr=0.01,
                                     betas=[0.9, 0.99], eps=1e-8, weight_decay=0.05),
    "convnext_block": dict(CONVNEXT, method="block"),
    "convnext_eval": dict(CONVNEXT, mode="eval", scaling="inference"),
    "regnet_y_sample_eval": dict(REGNET, scaling="inference", mode="eval"),
    "regnet_y_survivors": dict(REGNET, compute="survivors"),
    "regnet_x_block": dict(REGNET, se_ratio=None, method="block"),
}
NETWORKS = {"efficientnet": MaskedEfficientNet, "convnext": MaskedConvNeXt, "regnet": MaskedRegNet}


def block_count(spec):
    return sum(stage.get("num_layers", stage.get("depth")) for stage in spec["stages"])
