"""Checkpoints in torchvision's layout, against a small ResNet in that layout written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fmrt
from fmrt.export.resnet import main
from fmrt.export.vision.image_processor import ImageProcessor
from tests.export.reference import assert_parity
from tests.export.test_vision import photographs


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """A basic block of two 3 x 3 convolutions, or a bottleneck with its stride in the middle."""

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        inner = outputs // 4 if bottleneck else outputs
        plan = [(inputs, inner, 3, stride), (inner, outputs, 3, 1)]
        if bottleneck:
            plan = [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
        for i, sizes in enumerate(plan, 1):
            setattr(self, f"conv{i}", convolution(*sizes))
            setattr(self, f"bn{i}", nn.BatchNorm2d(sizes[1]))
        self.count = len(plan)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            shortcut = convolution(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.count else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths, depths = [8, 16, 32, 64], [2, 1, 2, 1]
        if bottleneck:
            widths = [4 * width for width in widths]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            before = 8 if i == 0 else widths[i - 1]
            blocks = [Block(before, width, 2 if i else 1, bottleneck)]
            blocks += [Block(width, width, 1, bottleneck) for _ in range(depth - 1)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return x.mean((2, 3))


def made(bottleneck: bool) -> ResNet:
    torch.manual_seed(0)
    model = ResNet(bottleneck).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def prefixed(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in model.state_dict().items()}


HEAD = {"projector.0.weight": torch.zeros(4, 4), "queue": torch.zeros(2, 3)}
CHECKPOINTS = {
    "torchvision": (True, lambda m: m.state_dict(), ()),
    "simclr": (True, lambda m: {"state_dict": prefixed(m, "module.backbone."), "epoch": 3}, ()),
    "moco": (
        False,
        lambda m: {
            "state_dict": prefixed(m, "module.encoder_q.")
            | prefixed(made(bottleneck=True), "module.encoder_k.")
            | HEAD
        },
        ("--prefix", "state_dict.module.encoder_q."),
    ),
    "byol": (
        False,
        lambda m: {"model": prefixed(nn.Sequential(*list(m.children())[:-1]), "encoder.") | HEAD},
        (),
    ),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoint_matches_its_network(kind: str, tmp_path: Path) -> None:
    bottleneck, saved, options = CHECKPOINTS[kind]
    model = made(bottleneck)
    torch.save(saved(model), tmp_path / "checkpoint.pth")
    directory = tmp_path / "model"
    assert main([str(tmp_path / "checkpoint.pth"), str(directory), *options]) == 0
    processor = ImageProcessor(directory)
    pixels = np.stack([processor(data) for data in photographs()])
    with torch.no_grad():
        want = model(torch.from_numpy(pixels)).numpy()
    assert np.ptp(want, axis=0).max() > 1e-2
    with fmrt.Embedder(fmrt.export_model(directory, tmp_path / "bundle")) as embedder:
        assert_parity(embedder.embed(photographs()), want, 1e-4)


def test_what_is_no_plain_resnet_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint.pth"
    whole = made(bottleneck=True).state_dict()
    small = whole | {"conv1.weight": torch.zeros(8, 3, 3, 3)}
    grouped = whole | {"layer1.0.conv2.weight": torch.zeros(8, 4, 3, 3)}
    lacking = {name: value for name, value in whole.items() if "layer4.0.bn2" not in name}
    two = prefixed(made(bottleneck=True), "a.") | prefixed(made(bottleneck=True), "b.")
    for content, reason in (
        ({"fc.weight": torch.zeros(2, 2)}, "holds no ResNet"),
        (small, "3 x 3, not 7 x 7"),
        (grouped, "size mismatch"),
        (lacking, "lacks encoder.stages.3.layers.0.layer.1.normalization.weight"),
        (two, "choose with --prefix from a., b."),
    ):
        torch.save(content, file)
        assert main([str(file), str(tmp_path / "model")]) == 1
        error = capsys.readouterr().err
        assert reason in error
        assert len(error.splitlines()) == 1
    file.write_bytes(b"no checkpoint")
    assert main([str(file), str(tmp_path / "model")]) == 1
    assert not (tmp_path / "model").exists()
