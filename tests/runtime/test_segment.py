"""Segmentation without torch: a tiny bundle whose masks are known, its API and command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

PIL = pytest.importorskip("PIL")
from PIL import Image

import fmrt
from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import (
    REFERENCE_FILE,
    ImageInput,
    Manifest,
    Source,
    TaskHead,
    Tower,
    Variant,
)
from fmrt.cli import main
from fmrt.errors import (
    BundleCorruptError,
    GraphError,
    InputError,
    OptionError,
    VerificationError,
)
from fmrt.preprocess.frame import Frame
from fmrt.segmentation.masks import in_image, resize_bilinear

SIDE, CELLS = 32, 8
SPEC = ImageInput(
    height=SIDE,
    width=SIDE,
    tokens=CELLS * CELLS,
    resize=None,
    resample=2,
    resize_float=False,
    crop=None,
    scale=(1 / 255,) * 3,
    shift=(0.0,) * 3,
    longest_edge=SIDE,
)
ITEM = {"image": 0, "points": [[8.0, 4.0]], "labels": None, "box": None}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("segment") / "bundle"
    (directory / "onnx").mkdir(parents=True)
    write_bundle(directory)
    return directory


def write_bundle(directory: Path) -> None:
    """Three masks, one a channel: where it is brighter than a point's x over the model's width."""
    write_encoder(directory / "onnx/vision_encoder.onnx")
    write_decoder(directory / "onnx/prompt_encoder_mask_decoder.onnx")
    features = np.zeros((3, CELLS, CELLS), np.float32)
    features[0, : CELLS // 2] = 1.0  # the image, twice as wide as high; padding below
    masks = features - 16 / SIDE  # x of the point, as the image is twice as large in the model
    save_file(
        {
            "image.item.0": np.frombuffer(png(red()), np.uint8),
            "image.embeddings": features.mean((1, 2))[None],
            "image.lengths": np.array([CELLS * CELLS]),
            "segment.pred_masks": masks[None],
            "segment.iou_scores": masks.mean((1, 2))[None],
        },
        directory / REFERENCE_FILE,
        {"image": json.dumps([{"bytes": "image.item.0"}]), "segment": json.dumps([ITEM])},
    )
    write_manifest(directory)


def red() -> Image.Image:
    return Image.new("RGB", (16, 8), (255, 0, 0))


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def save(path: Path, nodes: list, inputs: dict, outputs: dict, constants: dict) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def values(described: dict) -> list:
        kinds = {"input_labels": TensorProto.INT64}
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in described.items()
        ]

    graph = helper.make_graph(
        nodes,
        "tiny",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def write_encoder(path: Path) -> None:
    from onnx.helper import make_node

    cell = SIDE // CELLS
    nodes = [
        make_node(
            "AveragePool",
            ["pixel_values"],
            ["image_embeddings"],
            kernel_shape=[cell, cell],
            strides=[cell, cell],
        ),
        make_node("ReduceMean", ["image_embeddings", "axes"], ["image_embeds"], keepdims=0),
    ]
    outputs = {"image_embeddings": ["b", 3, CELLS, CELLS], "image_embeds": ["b", 3]}
    constants = {"axes": np.array([2, 3])}
    save(path, nodes, {"pixel_values": ["b", 3, SIDE, SIDE]}, outputs, constants)


def write_decoder(path: Path) -> None:
    from onnx.helper import make_node

    nodes = [
        make_node("Gather", ["input_points", "zero"], ["x"], axis=3),  # [b, p, n]
        make_node("ReduceMax", ["x", "last"], ["most"], keepdims=0),  # [b, p]
        make_node("Div", ["most", "side"], ["level"]),
        make_node("Unsqueeze", ["level", "tail"], ["levels"]),  # [b, p, 1, 1, 1]
        make_node("Unsqueeze", ["image_embeddings", "second"], ["images"]),
        make_node("Sub", ["images", "levels"], ["pred_masks"]),
        make_node("ReduceMean", ["pred_masks", "sides"], ["iou_scores"], keepdims=0),
    ]
    inputs = {
        "input_points": ["b", "p", "n", 2],
        "input_labels": ["b", "p", "n"],
        "image_embeddings": ["b", 3, CELLS, CELLS],
    }
    outputs = {"pred_masks": ["b", "p", 3, CELLS, CELLS], "iou_scores": ["b", "p", 3]}
    constants = {
        "zero": np.array(0),
        "last": np.array([2]),
        "side": np.array(SIDE, np.float32),
        "tail": np.array([2, 3, 4]),
        "second": np.array([1]),
        "sides": np.array([3, 4]),
    }
    save(path, nodes, inputs, outputs, constants)


def write_manifest(directory: Path) -> None:
    def variant(stem: str) -> Variant:
        record = record_of(directory / f"onnx/{stem}.onnx")
        file = f"onnx/{stem}.onnx"
        return Variant("fp32", file, "any", "fp32", record.sha256, record.size, "image")

    tower = Tower(
        modality="image",
        inputs=("pixel_values",),
        outputs=("image_embeddings", "image_embeds"),
        embedding_output="image_embeds",
        pooling="mean",
        normalize=False,
        input=SPEC,
    )
    head = TaskHead(
        task="segment",
        modality="image",
        features=("image_embeddings",),
        inputs=("input_points", "input_labels"),
        outputs=("pred_masks", "iou_scores"),
        variants=(variant("prompt_encoder_mask_decoder"),),
    )
    Manifest(
        source=Source("tiny/levels", None, "0" * 64),
        packages={},
        model_type="levels",
        dim=3,
        matryoshka_dims=(),
        towers=(tower,),
        files={REFERENCE_FILE: record_of(directory / REFERENCE_FILE)},
        variants=(variant("vision_encoder"),),
        fmrt_version="0.1.0",
        heads=(head,),
    ).write(directory)


def test_masks_have_the_size_of_the_image(bundle: Path) -> None:
    segmenter = fmrt.Segmenter(bundle)
    halves = np.zeros((30, 60, 3), np.uint8)
    halves[:, 30:] = (0, 255, 0)
    image = segmenter.encode(halves)
    assert image.size == (30, 60)
    left, right = segmenter.segment_prompts(
        image, [fmrt.SegmentPrompt([(15, 1)]), fmrt.SegmentPrompt(box=(3, 3, 59, 30))]
    )
    assert left.best == 1
    assert left.masks().shape == (3, 30, 60)
    assert (left.mask()[:, 34:]).all()
    assert not left.mask()[:, :26].any()
    assert right.mask().sum() < left.mask().sum()  # a higher level


def test_many_prompts_in_any_order(bundle: Path) -> None:
    """More than fit one call, of several kinds: each gets its own result, as if alone."""
    segmenter = fmrt.Segmenter(bundle)
    image = segmenter.encode(red())
    prompts = [
        fmrt.SegmentPrompt([(i % 16, 1)] * (1 + i % 3), None, (0, 0, 16, 8) if i % 5 == 0 else None)
        for i in range(50)
    ]
    for prompt, result in zip(prompts, segmenter.segment_prompts(image, prompts), strict=True):
        alone = segmenter.segment(image, points=prompt.points, box=prompt.box)
        assert (alone.logits == result.logits).all()
    assert segmenter.segment_prompts(image, []) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (fmrt.SegmentPrompt(), "no prompt: give a point or a box"),
        (
            fmrt.SegmentPrompt([(16.5, 1)]),
            "point 16.5,1 is outside of the image, which is 16 x 8 pixels",
        ),
        (fmrt.SegmentPrompt([(-1, 1)]), "point -1,1 is outside"),
        (fmrt.SegmentPrompt(box=(1, 1, 5, 9)), "box corner 5,9 is outside"),
        (fmrt.SegmentPrompt(box=(5, 1, 1, 3)), "box 5,1,1,3 is empty"),
        (fmrt.SegmentPrompt(box=(5, 1, 3)), "a box is"),
        (fmrt.SegmentPrompt([(1, 1)], [1, 0]), "1 points and 2 labels"),
        (fmrt.SegmentPrompt([(1, 1)], [3]), "label 3; a point is on the object"),
        (fmrt.SegmentPrompt([(1, 1, 1)]), "points are"),
        (fmrt.SegmentPrompt([("a", 1)]), "not all numbers"),
        (fmrt.SegmentPrompt([(float("nan"), 1)]), "not all finite"),
    ],
)
def test_prompts_that_make_no_sense(bundle: Path, prompt: fmrt.SegmentPrompt, message: str) -> None:
    segmenter = fmrt.Segmenter(bundle)
    image = segmenter.encode(red())
    with pytest.raises(InputError, match=message):
        segmenter.segment_prompts(image, [prompt])
    with pytest.raises(InputError, match=f"item 1: .*{message}"):
        segmenter.segment_prompts(image, [fmrt.SegmentPrompt([(1, 1)]), prompt])


def test_a_decoder_that_is_wrong_is_refused(bundle: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(bundle, wrong)
    decoder = wrong / "onnx/prompt_encoder_mask_decoder.onnx"
    decoder.write_bytes(decoder.read_bytes().replace(np.float32(SIDE).tobytes(), b"\0\0\x04\x42"))
    write_manifest(wrong)
    with pytest.raises(VerificationError, match="does not give PyTorch's masks"):
        fmrt.Segmenter(wrong)
    fmrt.Segmenter(wrong, verify=False)
    failed = [
        report.modality
        for report in fmrt.verify_bundle(fmrt.Bundle.open(wrong))
        if not report.passed
    ]
    assert failed == ["segment: pred_masks", "segment: iou_scores"]


def test_both_graphs_come_from_the_hub(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def download(_: str, name: str, **__: object) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        return str(shutil.copy(bundle / name, tmp_path / name))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fmrt.Segmenter("owner/levels")
    there, files = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path, bundle)
    )
    assert there == files


def test_a_bundle_of_texts_does_not_segment(tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="bag-of-words model cannot segment; it only embeds"):
        fmrt.Segmenter(tiny_bundle)


FORKED = """
import os, sys
import numpy as np
import fmrt

segmenter = fmrt.Segmenter(sys.argv[1])
picture = np.full((40, 30, 3), (255, 0, 0), np.uint8)
image = segmenter.encode(picture)

def found(image):
    return segmenter.segment(image, points=[(8, 4)]).logits

want = found(image)

def same():
    assert np.array_equal(found(image), want)  # features that the parent computed
    assert np.array_equal(found(segmenter.encode(picture)), want)

child = os.fork()
if child == 0:
    same()
    sys.exit(7)
same()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
segmenter._engine.provider = "cuda"
child = os.fork()
if child == 0:
    try:
        found(image)
    except fmrt.errors.ProcessError as error:
        os._exit(7 if "loaded on cuda before fork()" in str(error) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_segments(bundle: Path) -> None:
    command = [sys.executable, "-c", FORKED, bundle]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_embeds_too(bundle: Path) -> None:
    with fmrt.Embedder(bundle) as embedder:
        assert np.allclose(embedder.embed([red()]), [[0.5, 0, 0]])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    red().save("red.png")
    return tmp_path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_command_writes_masks(
    bundle: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["segment", str(bundle), "red.png", "--point", "4,4"]
    assert main([*run, "-o", "best"]) == 0
    assert names(place / "best") == ["prompt0_mask0.png"]
    mask = np.asarray(Image.open("best/prompt0_mask0.png"))
    assert mask.shape == (8, 16)
    assert set(np.unique(mask)) == {255}
    assert "best/prompt0_mask0.png" in capsys.readouterr().out
    more = ["--box", "1,1,9,7", "--each", "--all-masks"]
    assert main([*run, *more, "--npy", "-o", "all"]) == 0
    assert len(names(place / "all")) == 12
    assert main([*run, *more, "-o", "all.npy"]) == 0
    assert np.load("all.npy").shape == (6, 8, 16)
    assert (np.load("all.npy")[4] == np.load("all/prompt1_mask1.npy")).all()
    assert main([*run, "--label", "0", "-o", "one.png"]) == 0
    assert main([*run, "-o", "all", "--overwrite"]) == 0
    assert names(place / "all") == ["prompt0_mask0.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "m"], "no prompt: give --point X,Y or --box X0,Y0,X1,Y1"),
        (["--point", "99,1", "-o", "m"], "point 99,1 is outside of the image"),
        (["--point", "1,1", "--label", "1", "--label", "0", "-o", "m"], "1 --point and 2 --label"),
        (["--box", "1,1,2,2", "--box", "1,1,3,3", "-o", "m"], "several --box: say --each"),
        (["--point", "1,1", "--all-masks", "-o", "m.png"], "m.png holds one mask"),
        (["--point", "1,1", "-o", "no/m.png"], "no is no folder"),
        (["--point", "1,1", "-o", "red.png"], "red.png exists; say --overwrite"),
        (["--point", "1,1", "-o", "red"], "red is a file"),
    ],
)
def test_command_with_bad_arguments(
    bundle: Path,
    place: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy("red.png", "red")
    before = names(place)
    assert main(["segment", str(bundle), "red.png", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert names(place) == before


def test_command_with_bad_images_and_bundles(
    bundle: Path, tiny_bundle: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "cut.png").write_bytes(png(Image.effect_noise((40, 40), 50))[:400])
    rest = ["--point", "1,1", "-o", "m"]
    assert main(["segment", str(bundle), "cut.png", *rest]) == 1
    assert "cut.png: the image is corrupt" in capsys.readouterr().err
    assert main(["segment", str(bundle), "none.png", *rest]) == 1
    assert "cannot read 'none.png'" in capsys.readouterr().err
    assert main(["segment", str(tiny_bundle), "red.png", *rest]) == 1
    assert "bag-of-words model cannot segment" in capsys.readouterr().err
    np.save("v.npy", np.ones((2, 3), np.float32))
    assert main(["search", str(bundle), "v.npy", "a text"]) == 1
    assert "embeds image, not text" in capsys.readouterr().err
    assert main(["info", str(bundle)]) == 0
    assert "segment images" in capsys.readouterr().out


def test_resize_bilinear() -> None:
    line = np.array([[[0.0, 1.0]]], np.float32)
    assert np.allclose(resize_bilinear(line, (1, 4)), [[[0, 0.25, 0.75, 1]]])
    assert (resize_bilinear(line, (1, 2)) == line).all()
    assert resize_bilinear(line, (3, 1)).tolist() == [[[0.5]] * 3]


def test_padding_is_cut_off() -> None:
    frame = Frame.of((10, 20), SPEC)
    assert frame.resized == (16, 32)
    assert np.allclose(frame.points(np.array([[10.0, 5.0]])), [[16, 8]])
    mask = np.full((1, 8, 8), -1, np.float32)
    mask[:, :4] = 1
    assert in_image(mask, frame).shape == (1, 10, 20)
    assert (in_image(mask, frame)[:, :9] > 0).all()


def test_masks_of_no_numbers_are_an_error(bundle: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    place = shutil.copytree(bundle, tmp_path / "bundle")
    file = place / "onnx/prompt_encoder_mask_decoder.onnx"
    model = onnx.load(file)
    side = next(t for t in model.graph.initializer if t.name == "side")
    side.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), "side"))
    onnx.save(model, file)
    raw = json.loads((place / "fmrt.json").read_text())
    record = record_of(file)
    raw["heads"][0]["variants"][0].update(sha256=record.sha256, size=record.size)
    (place / "fmrt.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="NaN or infinity"):
        fmrt.Segmenter(place, verify=False).segment(red(), points=[(3, 3)])
    with pytest.raises(BundleCorruptError, match=r"reference item 0: .*NaN"):
        fmrt.Segmenter(place)
    raw["heads"][0]["features"] = ["image_embeds"]
    (place / "fmrt.json").write_text(json.dumps(raw))
    with pytest.raises(GraphError, match="input 'image_embeddings'"):
        fmrt.Segmenter(place)
    raw["heads"][0]["outputs"] = ["pred_masks"]
    (place / "fmrt.json").write_text(json.dumps(raw))
    with pytest.raises(GraphError, match="is without iou_scores"):
        fmrt.Segmenter(place)
