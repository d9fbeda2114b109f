"""Image files through a tiny bundle, with a model that is a mean of pixels."""

from __future__ import annotations

import io
import json
import os
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
    Tower,
    Variant,
)
from fmrt.cli import main
from fmrt.data import (
    modality_of,
    read_embeddings,
    read_records,
)
from fmrt.errors import InputError, OptionError
from fmrt.preprocess import image as module
from fmrt.preprocess.image import ImagePreprocessor, center_crop

SIDE = 8
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
MODES += ["I", "F"]
SPEC = ImageInput(
    height=SIDE,
    width=SIDE,
    tokens=4,
    resize=(SIDE, SIDE),
    resample=2,
    resize_float=False,
    crop=None,
    scale=(1 / 255,) * 3,
    shift=(0.0, -0.5, 0.5),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeds an image as the mean of each channel."""
    import onnx
    from onnx import TensorProto, helper

    directory = tmp_path_factory.mktemp("images") / "bundle"
    (directory / "onnx").mkdir(parents=True)
    shape = ["batch", 3, SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["pixel_values", "axes"], ["image_embeds"], keepdims=0)],
        "tiny",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, directory / "onnx/model.onnx")
    colour = (10, 20, 30)
    save_file(
        {
            "image.item.0": np.frombuffer(encoded(Image.new("RGB", (5, 5), colour)), np.uint8),
            "image.embeddings": np.array([expected(colour)], np.float32),
            "image.lengths": np.array([4]),
        },
        directory / REFERENCE_FILE,
        {"image": json.dumps([{"bytes": "image.item.0"}])},
    )
    record = record_of(directory / "onnx/model.onnx")
    tower = Tower(
        "image",
        ("pixel_values",),
        ("image_embeds",),
        "image_embeds",
        "mean",
        normalize=False,
        input=SPEC,
    )
    Manifest(
        source=Source("tiny/mean", None, "0" * 64),
        packages={},
        model_type="mean",
        dim=3,
        matryoshka_dims=(),
        towers=(tower,),
        files={REFERENCE_FILE: record_of(directory / REFERENCE_FILE)},
        variants=(
            Variant("fp32", "onnx/model.onnx", "any", "fp32", record.sha256, record.size, "image"),
        ),
        fmrt_version="0.1.0",
    ).write(directory)
    return directory


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def expected(colour: tuple[int, int, int]) -> list[float]:
    return [c / 255 + s for c, s in zip(colour, SPEC.shift, strict=True)]


def test_every_kind_of_item_and_mode(bundle: Path, tmp_path: Path) -> None:
    red = Image.new("RGB", (9, 13), (200, 40, 10))
    path = tmp_path / "red.png"
    path.write_bytes(encoded(red))
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE)
    same = [red, path, str(path), path.read_bytes(), np.asarray(red), palette, red.convert("RGBA")]
    gray = Image.new("L", (4, 4), 100)
    deep = Image.fromarray(np.full((4, 4), 100 * 257, np.uint16))
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed([*same, gray, encoded(deep), np.asarray(gray)])
    assert np.allclose(got[:7], expected((200, 40, 10)), atol=1e-6)
    assert np.allclose(got[7:], expected((100, 100, 100)), atol=1e-6)


def gray() -> Image.Image:
    return Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_what_pillow_makes_of_it(mode: str) -> None:
    image = gray().convert("RGB") if mode == "LAB" else gray()
    image = lab(image) if mode == "LAB" else image.convert("RGBA").convert(mode)
    assert image.mode == mode
    assert np.array_equal(ImagePreprocessor(SPEC).load(image), np.asarray(image.convert("RGB")))


def lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def test_integers_of_32_bits_are_clipped_and_of_16_scaled() -> None:
    wanted = np.asarray(gray().convert("RGB"))
    deep = Image.fromarray(np.asarray(gray()).astype(np.uint16) * 257)
    files = [encoded(gray().convert("I"), "TIFF"), encoded(gray().convert("F"), "TIFF")]
    files += [encoded(deep, kind) for kind in ("PNG", "TIFF", "PPM")]
    for data in files:
        assert np.array_equal(ImagePreprocessor(SPEC).load(data), wanted)
    premultiplied = gray().convert("LA").convert("La")
    assert np.array_equal(ImagePreprocessor(SPEC).load(premultiplied), wanted)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for item, reason in ((tmp_path / "a.png", "a named pipe"), (tmp_path, "a directory")):
        with pytest.raises(InputError, match=reason):
            ImagePreprocessor(SPEC).load(item)


def test_the_first_frame_upright() -> None:
    left = np.zeros((8, 8, 3), np.uint8)
    left[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what was left is then on top
    turned = encoded(Image.fromarray(left), "PNG", exif=exif)
    got = ImagePreprocessor(SPEC).load(turned)
    assert (got[:4] == 255).all()
    assert (got[4:] == 0).all()
    frames = [Image.new("RGB", (8, 8), (255, 255, 255)), Image.new("RGB", (8, 8))]
    film = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (ImagePreprocessor(SPEC).load(film) == 255).all()


def bad_files() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    whole = encoded(Image.fromarray(noise))
    return {
        "empty.png": b"",
        "text.jpg": b"this is no image",
        "truncated.png": whole[: len(whole) // 2],
        "corrupt.png": whole[:60] + bytes(200) + whole[260:],
    }


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_refused_on_one_line(bundle: Path, name: str) -> None:
    with fmrt.Embedder(bundle) as embedder:
        with pytest.raises(InputError, match="item 1: ") as e:
            embedder.embed([Image.new("RGB", (4, 4)), bad_files()[name]])
        assert "\n" not in str(e.value)
        with pytest.raises(OptionError, match="no prompt"):
            embedder.embed([], prompt="query: ")
        with pytest.raises(InputError, match="no such"):
            embedder.embed(["no such.png"])


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="over the limit"):
        ImagePreprocessor(SPEC).load(encoded(Image.new("RGB", (100, 100))))


def test_a_folder_with_bad_files(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, data in bad_files().items():
        (folder / name).write_bytes(data)
    colours = {"more/a.png": (1, 2, 3), "z.bmp": (250, 0, 100)}
    for name, colour in colours.items():
        Image.new("RGB", (6, 7), colour).save(folder / name)
    (folder / "notes.txt").write_text("not asked for")
    out = tmp_path / "v.npy"
    command = ["embed", str(bundle), str(folder), "-o", str(out)]
    assert main(command) == 1
    assert f"'{folder / 'corrupt.png'}'" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--on-error", "skip"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "skipped" in line and "in all" in line]
    assert all(any(name in line for line in lines) for name in bad_files())
    assert np.allclose(np.load(out), [expected(c) for c in colours.values()], atol=1e-6)


def photos(folder: Path) -> list[str]:
    """A folder of all kinds of files; the images in it."""
    image = Image.new("RGB", (6, 7), (9, 8, 7))
    kinds = {"a.JPG": "JPEG", "b.avif": "AVIF", "c.jfif": "JPEG", "d.jp2": "JPEG2000"}
    kinds |= {
        "e.tga": "TGA",
        "f.jpe": "JPEG",
        "g": "PNG",
        "more/h.dat": "WEBP",
        "i.psd.bak": "TIFF",
    }
    (folder / "more").mkdir(parents=True)
    for name, kind in kinds.items():
        (folder / name).write_bytes(encoded(image, kind))
    others = {"j.heic": b"\0\0\0\x18ftypheic" + bytes(200), "k.m4a": b"\0\0\0\x20ftypM4A "}
    others |= {"l.txt": b"a text", "m": b"", ".n.png": encoded(image), "o.ps": b"%!PS-Adobe-3.0"}
    for name, data in others.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "p.png")
    (folder / "q").symlink_to("q")
    (folder / "r").symlink_to("nothing")
    (folder / "more/s").symlink_to("..")
    return sorted(kinds)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_all_images_of_a_folder_are_embedded_and_all_else_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = photos(tmp_path / "photos")
    out = tmp_path / "v.parquet"
    command = ["embed", str(bundle), str(tmp_path / "photos"), "--keep", "path", "-o", str(out)]
    assert main(command) == 0
    found, kept = read_embeddings(str(out), columns=["path"])
    assert kept["path"] == names
    assert np.allclose(found, expected((9, 8, 7)), atol=0.05)
    said = capsys.readouterr().err
    assert "passed over 10 files" in said
    for name in ("j.heic", "k.m4a", "l.txt", "'m'", ".n.png", "o.ps", "p.png", "q", "r", "more/s"):
        assert name in said
    records = read_records(str(tmp_path / "photos"), modality="image")
    assert len(list(records)) == len(names)
    assert ("p.png", "no regular files (a named pipe)") in records.passed_over


def test_a_bundle_of_two_towers_sees_what_its_input_is(tmp_path: Path) -> None:
    names = photos(tmp_path / "photos")
    several = ("text", "image")
    assert modality_of(str(tmp_path / "photos"), several) == "image"
    for name in names:
        assert modality_of(str(tmp_path / "photos" / name), several) == "image"
    for other in ("-", str(tmp_path / "photos/l.txt"), str(tmp_path / "none.csv")):
        assert modality_of(other, several) is None


def test_one_image_of_any_name(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for name in ("a.avif", "b", "c.PNG", "d.dat"):
        Path("images", name).write_bytes(encoded(Image.new("RGB", (6, 7), (9, 8, 7))))
        assert main(["embed", str(bundle), f"images/{name}", "-o", "v.npy", "--overwrite"]) == 0
        assert np.allclose(np.load("v.npy"), [expected((9, 8, 7))], atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights, names are Unicode")
def test_links_and_names_of_any_bytes_in_a_job(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (tmp_path / "other").mkdir()
    folder.mkdir()
    data = encoded(Image.new("RGB", (6, 7), (9, 8, 7)))
    for name in (os.fsdecode(b"a\xff.png"), "b.png", "../other/c.png"):
        (folder / name).write_bytes(data)
    (folder / "lost.png").symlink_to("nothing")
    (folder / "linked").symlink_to("../other")
    (tmp_path / "other/back").symlink_to(folder)
    command = ["embed", str(bundle), str(folder), "-o", f"{tmp_path}/out/", "--on-error", "skip"]
    for _ in range(2):
        assert main(command) == 0
        assert len(read_embeddings(str(tmp_path / "out"))[0]) == 3
    assert "lost.png" in capsys.readouterr().err
    out = str(tmp_path / "v.parquet")
    assert main([*command[:3], "-o", out, "--on-error", "skip", "--keep", "path"]) == 0
    assert "is not UTF-8" in capsys.readouterr().err


def test_a_list_of_paths_is_relative_to_itself(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 7), (9, 8, 7)).save(tmp_path / "images/a.png")
    (tmp_path / "list.csv").write_text("path,label\nimages/a.png,1\n")
    out = tmp_path / "v.npy"
    assert main(["embed", str(bundle), str(tmp_path / "list.csv"), "-o", str(out)]) == 0
    assert np.allclose(np.load(out), [expected((9, 8, 7))], atol=1e-6)


def test_the_column_of_images_comes_before_texts(bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (6, 7), (9, 8, 7)).save(tmp_path / "a.png")
    for column in ("image", "path", "file_name"):
        (tmp_path / "list.csv").write_text(f"text,{column}\na photo,a.png\n")
        records = read_records(str(tmp_path / "list.csv"), modality="image")
        assert [record.value for record in records] == ["a.png"]
        (tmp_path / "list.csv").write_text(f"id,{column}\n1,a.png\n")
        assert column in read_records(str(tmp_path / "list.csv")).choices[0]


def test_bytes_in_parquet(bundle: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    data = encoded(Image.new("RGB", (6, 7), (9, 8, 7)))
    out = tmp_path / "v.parquet"
    for values in ([data], [{"bytes": data, "path": None}]):
        arrow.parquet.write_table(arrow.table({"image": values}), tmp_path / "in.parquet")
        command = ["embed", str(bundle), str(tmp_path / "in.parquet"), "-o", str(out)]
        assert main([*command, "--overwrite"]) == 0
        assert arrow.parquet.read_table(out).num_rows == 1


def test_a_crop_larger_than_the_image_is_surrounded_by_zeros() -> None:
    got = center_crop(np.ones((3, 6, 1), np.uint8), (6, 4))[:, :, 0]
    assert got.shape == (6, 4)
    assert got.sum() == 12
    assert (got[2:5] == 1).all()
