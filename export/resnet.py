"""A plain torch checkpoint with a ResNet backbone -> a transformers model directory.

``python -m fmrt.export.resnet CHECKPOINT DIRECTORY`` writes what ``fmrt export DIRECTORY BUNDLE``
takes.

Checkpoints of self-supervised training (SimCLR, BYOL, MoCo, ...) hold a state dict in torchvision's
names, below prefixes such as ``module.encoder_q.``, next to projection heads. The architecture is
read off the weights' shapes; heads are dropped.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import BitImageProcessorPil, ResNetConfig, ResNetModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from fmrt.errors import ExportError, FmrtError
from fmrt.export.loading.pretrained import first_line
from fmrt.export.quiet import quiet

Weights = dict[str, Tensor]
# torchvision's children in order, for checkpoints of ``Sequential(*resnet.children())``.
NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# Where a prefix ends: the first block of the backbone, in both spellings.
FIRST_BLOCK = re.compile(r"(|.*\.)(?:layer1|4)\.0\.conv1\.weight")
BACKBONE = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.(\w+)")
NOT_NEEDED = "num_batches_tracked"
STAGES = 4
KERNEL = 7


def convert(checkpoint: Path, directory: Path, prefix: str | None = None) -> ResNetConfig:
    """Write a ResNet's weights, configuration and image processor.

    The image processor is torchvision's for evaluation (shorter edge to 256 pixels, 224 cut from
    the middle, ImageNet's mean and deviation); a checkpoint does not say which one it is for, so
    edit ``preprocessor_config.json`` where it was another.

    Args:
        checkpoint: A file that ``torch.save`` wrote, of tensors in dicts; read with weights alone.
        directory: The directory to write.
        prefix: The prefix of the backbone's names, where there are several.

    Raises:
        ExportError: The directory has no such backbone.
    """
    weights = _backbone(_read(checkpoint), checkpoint, prefix)
    config = _config(weights, checkpoint)
    model = ResNetModel(config).eval()
    try:
        missing, unknown = model.load_state_dict(
            {_renamed(name): value.float() for name, value in weights.items()}, strict=False
        )
    except RuntimeError as e:
        raise ExportError(f"{checkpoint} is no plain ResNet: {_last_line(e)}") from e
    missing = [name for name in missing if not name.endswith(NOT_NEEDED)]
    if missing or unknown:
        found = f"lacks {missing[0]}" if missing else f"has {unknown[0]} too"
        raise ExportError(f"{checkpoint} is no plain ResNet: it {found}")
    with quiet():
        model.save_pretrained(directory)
    BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=2,
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    ).save_pretrained(directory)
    return config


def _read(checkpoint: Path) -> Weights:
    """All tensors by the path of keys that leads to them."""
    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as e:  # whatever a file that is no checkpoint provokes
        raise ExportError(f"{checkpoint} cannot be loaded as weights: {first_line(e)}") from e
    return dict(_flat(loaded, ""))


def _flat(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _backbone(weights: Weights, checkpoint: Path, prefix: str | None) -> Weights:
    """The backbone's weights in torchvision's names."""
    found = sorted({m[1] for name in weights if (m := FIRST_BLOCK.fullmatch(name))})
    if prefix is not None:
        found = [name for name in found if name == prefix]
    if not found:
        raise ExportError(
            f"{checkpoint} holds no ResNet{'' if prefix is None else f' below {prefix!r}'}: no "
            "layer1.0.conv1.weight in torchvision's names"
        )
    if len(found) > 1:
        raise ExportError(
            f"{checkpoint} holds several ResNets: choose with --prefix from {', '.join(found)}"
        )
    out = {}
    for name, value in weights.items():
        if name.startswith(found[0]):
            first, _, rest = name.removeprefix(found[0]).partition(".")
            own = f"{NUMBERED.get(first, first)}.{rest}"
            if BACKBONE.fullmatch(own) and not own.endswith(NOT_NEEDED):
                out[own] = value
    return out


def _config(weights: Weights, checkpoint: Path) -> ResNetConfig:
    """The architecture, from the shapes."""
    first = weights.get("conv1.weight")
    if first is None or first.shape[2:] != (KERNEL, KERNEL):
        found = "none" if first is None else " x ".join(map(str, first.shape[2:]))
        raise ExportError(
            f"{checkpoint} is no plain ResNet: its first convolution is {found}, not 7 x 7"
        )
    blocks = [
        {int(n.split(".")[1]) for n in weights if n.startswith(f"layer{stage}.")}
        for stage in range(1, STAGES + 1)
    ]
    last = "conv3" if "layer1.0.conv3.weight" in weights else "conv2"
    return ResNetConfig(
        num_channels=first.shape[1],
        embedding_size=first.shape[0],
        hidden_sizes=[
            weights[f"layer{stage}.0.{last}.weight"].shape[0]
            for stage in range(1, STAGES + 1)
            if f"layer{stage}.0.{last}.weight" in weights
        ],
        depths=[len(found) for found in blocks if found],
        layer_type="bottleneck" if last == "conv3" else "basic",
    )


def _renamed(name: str) -> str:
    """The name that transformers has for torchvision's."""
    *block, layer, kind = name.split(".")
    if not block:
        return f"embedder.embedder.{_inner(layer)}.{kind}"
    stage, index, *downsample = block
    place = f"encoder.stages.{int(stage[-1]) - 1}.layers.{index}"
    if downsample:
        return f"{place}.shortcut.{('convolution', 'normalization')[int(layer)]}.{kind}"
    return f"{place}.layer.{int(layer[-1]) - 1}.{_inner(layer)}.{kind}"


def _inner(layer: str) -> str:
    return "convolution" if layer.startswith("conv") else "normalization"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m fmrt.export.resnet",
        description="Make a model directory, which fmrt export takes, of a torch checkpoint with "
        "a ResNet backbone in torchvision's names.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("directory", metavar="DIRECTORY", type=Path)
    parser.add_argument("--prefix", metavar="P", help="of the names, where there are several")
    args = parser.parse_args(arguments)
    try:
        config = convert(args.checkpoint, args.directory, args.prefix)
    except FmrtError as e:
        print(f"fmrt: error: {e}", file=sys.stderr)
        return 1
    print(f"{config.layer_type} blocks {config.depths}, widths {config.hidden_sizes}")
    print(
        "images: shorter edge to 256 pixels, 224 x 224 cut from the middle, ImageNet's mean and "
        f"deviation; if training differed, edit {args.directory / 'preprocessor_config.json'}"
    )
    print(f"next: fmrt export {args.directory} BUNDLE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
