"""Models that segment, from image files and prompts to masks, against transformers alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate
from transformers import AutoImageProcessor

import fmrt
from fmrt.cli import main
from fmrt.errors import ExportError, OptionError
from fmrt.export.quiet import quiet
from fmrt.export.segmentation.sam import FAMILIES, SamDecoder, argument
from fmrt.export.segmentation.sam_processor import SamProcessor
from fmrt.preprocess.frame import Frame, fitted_size
from fmrt.segmentation.masks import resize_bilinear
from tests.export.reference import assert_parity
from tests.export.sam import MODELS, NORMALIZED, SIDE, save_segmenter
from tests.export.strangers import check_for_strangers

PROMPTS = (
    fmrt.SegmentPrompt([(5.0, 7.5)]),
    fmrt.SegmentPrompt([(30.0, 20.0)], [0]),
    fmrt.SegmentPrompt([(1.0, 1.0), (60.0, 30.0), (33.3, 12.0)], [1, 0, 1]),
    fmrt.SegmentPrompt(box=(3.0, 2.0, 50.0, 31.0)),
    fmrt.SegmentPrompt([(20.0, 20.0)], None, (0.0, 0.0, 61.0, 35.0)),
    fmrt.SegmentPrompt(box=(10.0, 2.0, 20.0, 3.0)),
)


def photograph(height: int, width: int) -> bytes:
    rng = np.random.default_rng(height)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.cos(x / (4 + i) - y / (9 - i)) * 80 + 128 for i in range(3)]
    pixels = np.stack(waves, -1) + rng.integers(-25, 25, (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


class TorchSegmenter:
    """A model directory in transformers, one prompt at a time."""

    def __init__(self, model_type: str, directory: Path) -> None:
        with quiet():
            self.model = getattr(transformers, MODELS[model_type]).from_pretrained(directory).eval()
            self.square = model_type == "sam2"
            if self.square:
                images = transformers.ViTImageProcessorPil.from_pretrained(directory)
                self.processor = transformers.Sam2Processor(images)
            else:
                images = AutoImageProcessor.from_pretrained(directory, backend="pil")
                self.processor = transformers.SamProcessor(images)
            self.images = images

    def segment(self, data: bytes, prompt: fmrt.SegmentPrompt) -> tuple[np.ndarray, np.ndarray]:
        """Masks ``[3, height, width]`` and scores ``[3]``."""
        image = Image.open(io.BytesIO(data))
        inputs = {}
        if prompt.points:
            inputs["input_points"] = [[[list(point) for point in prompt.points]]]
            inputs["input_labels"] = [[prompt.labels or [1] * len(prompt.points)]]
        if prompt.box:
            inputs["input_boxes"] = [[list(prompt.box)]]
        size = [(image.height, image.width)]
        with torch.no_grad(), quiet():
            if self.square:
                pixels = self.images(image, return_tensors="pt")["pixel_values"]
                batch = {**self.processor(original_sizes=size, **inputs), "pixel_values": pixels}
                del batch["original_sizes"]
                output = self.model(**batch)
                masks = interpolate(output.pred_masks[0], size[0], mode="bilinear") > 0
            else:
                batch = self.processor(image, **inputs, return_tensors="pt")
                sizes = batch.pop("original_sizes"), batch.pop("reshaped_input_sizes")
                output = self.model(**batch)
                (masks,) = self.images.post_process_masks(output.pred_masks, *sizes)
        return masks[0].numpy(), output.iou_scores[0, 0].numpy()


@pytest.mark.parametrize("prompt", [PROMPTS[2], PROMPTS[3], PROMPTS[4]])
@pytest.mark.parametrize("model_type", MODELS)
def test_decoder_is_the_models(model_type: str, prompt: fmrt.SegmentPrompt, tmp_path: Path) -> None:
    """In PyTorch: boxes as points, and the padding of SAM, which the graph does, done here."""
    family = FAMILIES[model_type]
    model = save_segmenter(model_type, tmp_path)
    processor = SamProcessor(model, family.processor)
    data = photograph(40, 70)
    pixels = torch.from_numpy(processor(data))[None]
    frame = Frame.of((40, 70), processor.spec(1, [data]))
    points, labels = prompt.encoded(40, 70)
    positions = torch.from_numpy(frame.points(points))
    if not family.pads and prompt.box is None:
        positions = torch.cat([positions, torch.zeros(1, 2)])
        labels = np.append(labels, -1)
    with torch.no_grad(), quiet():
        backbone = getattr(transformers, family.model).from_pretrained(model).eval()
        features = family.encode(backbone, pixels)
        named = {argument(n): f for n, f in zip(family.features, features, strict=True)}
        got = SamDecoder(backbone, family)(
            positions[None, None], torch.from_numpy(labels)[None, None], **named
        )
        want = backbone(pixel_values=pixels, **processor.prompt(data, prompt))
    for name in family.outputs:
        assert torch.allclose(got[name], want[name], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
def test_masks_are_pytorchs(model_type: str, tmp_path: Path) -> None:
    model = save_segmenter(model_type, tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    check_for_strangers(bundle, model)
    want = TorchSegmenter(model_type, model)
    segmenter = fmrt.Segmenter(bundle)
    pixels = differing = 0
    for data in (photograph(40, 70), photograph(120, 62), photograph(64, 64)):
        image = segmenter.encode(data)
        together = segmenter.segment_prompts(image, PROMPTS)
        for prompt, result in zip(PROMPTS, together, strict=True):
            masks, scores = want.segment(data, prompt)
            assert_parity(result.scores[None], scores[None])
            assert result.masks().shape == masks.shape
            assert (result.mask() == result.masks()[scores.argmax()]).all()
            pixels += masks.size
            differing += int((result.masks() != masks).sum())
            alone = segmenter.segment(
                image, points=prompt.points, labels=prompt.labels, box=prompt.box
            )
            assert np.abs(alone.logits - result.logits).max() <= 1e-5
    assert differing <= 1e-4 * pixels
    check_embeddings(bundle, want)
    check_bundle(bundle, tmp_path)


def check_embeddings(bundle: fmrt.Bundle, want: TorchSegmenter) -> None:
    """The tower gives the mean of the features, as the manifest says."""
    data = photograph(50, 70)
    with torch.no_grad(), quiet():
        pixels = want.images(Image.open(io.BytesIO(data)), return_tensors="pt")["pixel_values"]
        features = want.model.get_image_embeddings(pixels)
    features = (
        features
        if isinstance(features, torch.Tensor)
        else features[0 if len(features) == 2 else -1]
    )
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed([data, photograph(7, 90)], batch_tokens=10_000)
    assert bundle.manifest.tower().pooling == "mean"
    assert_parity(got[:1], features.mean((2, 3)).numpy())


def check_bundle(bundle: fmrt.Bundle, tmp_path: Path) -> None:
    """Files named as other consumers expect, and every graph in the verification."""
    names = {path.name for path in (bundle.path / "onnx").iterdir()}
    assert {"vision_encoder.onnx", "prompt_encoder_mask_decoder.onnx"} <= names
    (head,) = bundle.manifest.heads
    graph = onnxruntime.InferenceSession(bundle.path / head.variants[0].file)
    assert {i.name for i in graph.get_inputs()} == {*head.features, "input_points", "input_labels"}
    assert {o.name for o in graph.get_outputs()} == set(head.outputs)
    assert (bundle.path / "preprocessor_config.json").is_file()
    assert all(variant.parity for variant in bundle.manifest.graphs)
    reports = list(fmrt.verify_bundle(bundle))
    assert all(report.passed for report in reports)
    assert {"image", "segment: pred_masks", "segment: iou_scores"} <= {r.modality for r in reports}
    (tmp_path / "photograph.png").write_bytes(photograph(40, 70))
    out = tmp_path / "masks.npy"
    arguments = [str(bundle.path), str(tmp_path / "photograph.png"), "--point", "5,7.5"]
    assert main(["segment", *arguments, "--all-masks", "-o", str(out)]) == 0
    assert np.load(out).shape == (3, 40, 70)


@pytest.mark.parametrize("as_floats", [False, True])
def test_sam2_pixels_are_within_a_level_of_torchvisions(tmp_path: Path, as_floats: bool) -> None:
    """Its processor needs torchvision, which resizes bytes, or floats on CPUs without AVX2."""
    model = save_segmenter("sam2", tmp_path / "model")
    processor = SamProcessor(model, "Sam2Processor")
    mean, std = (np.array(NORMALIZED[f"image_{n}"])[:, None, None] for n in ("mean", "std"))
    for data in (photograph(50, 70), photograph(200, 90), photograph(1, 3)):
        image = torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)[None]
        resized = interpolate(
            image.float() if as_floats else image, (SIDE, SIDE), mode="bilinear", antialias=True
        ).round()
        got = (processor(data) * std + mean) * 255
        assert np.abs(got - resized[0].numpy()).max() <= 1 + 1e-3


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    model = save_segmenter("sam", tmp_path / "model")
    with pytest.raises(OptionError, match="has only 'mean'"):
        fmrt.export_model(model, tmp_path / "out", pooling="cls")
    with pytest.raises(OptionError, match="about texts"):
        fmrt.export_model(model, tmp_path / "out", max_length=3)
    config = model / "preprocessor_config.json"
    config.write_text(config.read_text().replace('"longest_edge": 64', '"longest_edge": 65'))
    with pytest.raises(ExportError, match="SamImageProcessor is not supported"):
        fmrt.export_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SIDES = st.integers(1, 60)


@settings(max_examples=60)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.integers(0, 99))
def test_resize_is_torchs(old: tuple[int, int], new: tuple[int, int], seed: int) -> None:
    masks = np.random.default_rng(seed).standard_normal((2, *old)).astype(np.float32)
    want = interpolate(torch.from_numpy(masks)[None], new, mode="bilinear")[0].numpy()
    assert np.abs(resize_bilinear(masks, new) - want).max() <= 1e-5


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_fitted_size_is_transformers(size: tuple[int, int]) -> None:
    want = transformers.SamImageProcessorPil()._get_preprocess_shape(size, 1024)
    assert fitted_size(size, 1024) == tuple(max(1, side) for side in want)
