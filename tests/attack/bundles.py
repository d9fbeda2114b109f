"""Tiny bundles of every kind, made without torch, and what a program does with one."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import fmrt
from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import (
    REFERENCE_FILE,
    AudioInput,
    ImageInput,
    Manifest,
    Source,
    Tower,
    Variant,
)
from fmrt.bundle.reference import TOWERS, declared
from fmrt.preprocess.audio import AudioPreprocessor
from fmrt.preprocess.spectrogram import FEATURES_FILE, Spectrogram
from tests.attack.fuzz import command
from tests.runtime import conftest as text

MANIFEST, GRAPH = "fmrt.json", "onnx/model.onnx"
SIDE = 8
RATE = 16_000
Nodes = list[onnx.NodeProto]


def make_all(directory: Path) -> dict[str, Path]:
    """A bundle of each kind below ``directory``, with the options that it was exported with."""
    places = {}
    for kind, make in KINDS.items():
        places[kind] = directory / kind
        (places[kind] / "onnx").mkdir(parents=True)
        make(places[kind])
        keep_options(places[kind])
    return places


def keep_options(directory: Path) -> None:
    """As the exporter does, leave the towers' options in the reference file."""
    manifest = Manifest.read(directory)
    path = directory / REFERENCE_FILE
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() | {TOWERS: declared(manifest.towers)}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata)
    files = {**manifest.files, REFERENCE_FILE: record_of(path)}
    dataclasses.replace(manifest, files=files).write(directory)


def make_text(directory: Path) -> None:
    words, types = text_weights()
    text.make_tokenizer().save(str(directory / "tokenizer.json"))
    text.write_graph(directory / GRAPH, words, types)
    text.write_reference(directory / REFERENCE_FILE, words, types)
    text.make_manifest(directory).write(directory)


def text_weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    words = rng.standard_normal((len(text.VOCABULARY), text.DIM)).astype(np.float32)
    return words, rng.standard_normal((2, text.DIM)).astype(np.float32)


IMAGES = ((10, 20, 30), (255, 0, 100), (7, 7, 7))
IMAGE_SPEC = ImageInput(
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


def image_tower() -> Tower:
    names = ("pixel_values",), ("image_embeds",), "image_embeds"
    return Tower("image", *names, "mean", normalize=False, input=IMAGE_SPEC)


def write_image_graph(path: Path, times: int) -> int:
    """The mean of each channel, so many times over; returns the dimensions."""
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values", "axes"], ["m"], keepdims=0),
        helper.make_node("Concat", ["m"] * times, ["image_embeds"], axis=1),
    ]
    shape = ["batch", 3, SIDE, SIDE]
    dim = 3 * times
    save(path, nodes, {"pixel_values": shape}, {"image_embeds": ["batch", dim]}, {"axes": [2, 3]})
    return dim


def image_reference(times: int) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    tensors, entries, vectors = {}, [], []
    for i, color in enumerate(IMAGES):
        out = io.BytesIO()
        Image.new("RGB", (20, 13), color).save(out, "PNG")
        tensors[f"image.item.{i}"] = np.frombuffer(out.getvalue(), np.uint8)
        entries.append({"bytes": f"image.item.{i}"})
        vectors.append([color[k] / 255 + IMAGE_SPEC.shift[k] for k in range(3)] * times)
    tensors["image.embeddings"] = np.array(vectors, np.float32)
    tensors["image.lengths"] = np.full(len(IMAGES), IMAGE_SPEC.tokens)
    return tensors, entries


def make_image(directory: Path) -> None:
    dim = write_image_graph(directory / GRAPH, 1)
    tensors, entries = image_reference(1)
    save_file(tensors, directory / REFERENCE_FILE, {"image": json.dumps(entries)})
    write_manifest(directory, dim, [image_tower()], {"image": GRAPH})


def make_towers(directory: Path) -> None:
    """Texts and images in one space of 12 dimensions."""
    make_text(directory)
    dim = write_image_graph(directory / "onnx/vision_model.onnx", text.DIM // 3)
    tensors, entries = image_reference(text.DIM // 3)
    with safe_open(directory / REFERENCE_FILE, framework="np") as file:
        metadata = file.metadata() | {"image": json.dumps(entries)}
        tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, directory / REFERENCE_FILE, metadata)
    towers = [*Manifest.read(directory).towers, image_tower()]
    graphs = {"text": GRAPH, "image": "onnx/vision_model.onnx"}
    write_manifest(directory, dim, towers, graphs, ("tokenizer.json",))


def make_wave(directory: Path) -> None:
    spec = AudioInput(RATE, "input_values", 1, 10 * RATE, False, False, 0, None)
    make_audio(directory, spec, ["batch", "samples"], [1])


def make_spectrogram(directory: Path) -> None:
    rng = np.random.default_rng(1)
    filters = np.abs(rng.standard_normal((201, 8)))
    arrays = {"window": np.hanning(400), "mel_filters": filters}
    save_file(arrays, directory / FEATURES_FILE)
    parameters = {
        "fft_length": 400,
        "hop_length": 160,
        "center": True,
        "remove_dc_offset": False,
        "preemphasis": 0.0,
        "mel_floor": 1e-10,
        "logarithm": "log10",
        "fill": "zeros",
        "frames": 100,
        "dynamic_range": 8.0,
        "shift": 4.0,
        "scale": 0.25,
        "axes": "mel_time",
    }
    spec = AudioInput(RATE, "input_features", 1, RATE, True, False, 0, parameters)
    make_audio(directory, spec, ["batch", 8, 100], [1, 2], (FEATURES_FILE,))


def make_audio(
    directory: Path,
    spec: AudioInput,
    shape: list[Any],
    axes: list[int],
    files: tuple[str, ...] = (),
) -> None:
    """Mean and maximum of the model's input."""
    nodes = [
        helper.make_node("ReduceMean", [spec.input_name, "axes"], ["m"], keepdims=0),
        helper.make_node("ReduceMax", [spec.input_name, "axes"], ["x"], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "last"], ["m1"]),
        helper.make_node("Unsqueeze", ["x", "last"], ["x1"]),
        helper.make_node("Concat", ["m1", "x1"], ["audio_embeds"], axis=1),
    ]
    constants = {"axes": axes, "last": [1]}
    save(directory / GRAPH, nodes, {spec.input_name: shape}, {"audio_embeds": ["b", 2]}, constants)
    features = None
    if spec.spectrogram is not None:
        features = Spectrogram(directory / FEATURES_FILE, spec.spectrogram)
    preprocess = AudioPreprocessor(spec, features)
    tensors, entries, vectors, lengths = {}, [], [], []
    for i in range(3):
        out = io.BytesIO()
        wave = 0.3 * np.sin(np.arange(4000 * (i + 1)) * 0.05 * (i + 1))
        soundfile.write(out, wave, RATE, format="WAV")
        tensors[f"audio.item.{i}"] = np.frombuffer(out.getvalue(), np.uint8)
        entries.append({"bytes": f"audio.item.{i}"})
        loaded = preprocess.load(out.getvalue())
        vectors.append([loaded.values.mean(), loaded.values.max()])
        lengths.append(len(wave))
    tensors["audio.embeddings"] = np.array(vectors, np.float32)
    tensors["audio.lengths"] = np.array(lengths)
    save_file(tensors, directory / REFERENCE_FILE, {"audio": json.dumps(entries)})
    names = (spec.input_name,), ("audio_embeds",), "audio_embeds"
    tower = Tower("audio", *names, "mean", normalize=False, input=spec)
    write_manifest(directory, 2, [tower], {"audio": GRAPH}, files)


def make_segment(directory: Path) -> None:
    from tests.runtime import test_segment

    test_segment.write_bundle(directory)


def save(
    path: Path,
    nodes: Nodes,
    inputs: Mapping[str, list[Any]],
    outputs: Mapping[str, list[Any]],
    constants: Mapping[str, list[int]],
) -> None:
    def described(values: Mapping[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in values.items()
        ]

    values = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", described(inputs), described(outputs), values)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def write_manifest(
    directory: Path,
    dim: int,
    towers: list[Tower],
    graphs: Mapping[str, str],
    files: tuple[str, ...] = (),
) -> None:
    variants = []
    for modality, file in graphs.items():
        record = record_of(directory / file)
        variants.append(
            Variant("fp32", file, "any", "fp32", record.sha256, record.size, modality=modality)
        )
    Manifest(
        source=Source("tiny/means", "1", "0" * 64),
        packages={},
        model_type="means",
        dim=dim,
        matryoshka_dims=(),
        towers=tuple(towers),
        files={name: record_of(directory / name) for name in (*files, REFERENCE_FILE)},
        variants=tuple(variants),
        fmrt_version="0.1.0",
    ).write(directory)


KINDS: Mapping[str, Callable[[Path], None]] = {
    "text": make_text,
    "image": make_image,
    "wave": make_wave,
    "spectrogram": make_spectrogram,
    "towers": make_towers,
    "segment": make_segment,
}

PIXELS = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)
SOUND = np.sin(np.arange(3000, dtype=np.float32) * 0.1)
ITEMS: Mapping[str, list[list[Any]]] = {
    "text": [["the red cat", "dog " * 40, "日本"], ["cat"]],
    "image": [[PIXELS, PIXELS[:9]], [PIXELS]],
    "wave": [[SOUND, SOUND[:2000]], [SOUND]],
    "spectrogram": [[SOUND, SOUND[:2000]], [SOUND]],
    "towers": [["the red cat", "dog " * 40], [PIXELS, PIXELS[:9]], [PIXELS]],
    "segment": [[PIXELS]],
}


def results(kind: str, place: Path) -> list[np.ndarray]:
    """What a bundle gives for some items, with all its checks at load."""
    if kind == "segment":
        segmenter = fmrt.Segmenter(place)
        found = segmenter.segment(PIXELS, points=[(3, 4)])
        return [found.scores, found.logits, found.mask().astype(np.float32)]
    with fmrt.Embedder(place, workers=1, intra_op_threads=1) as embedder:
        vectors = [embedder.embed(items, on_too_long="truncate") for items in ITEMS[kind]]
        if "text" in embedder.manifest.modalities:
            vectors.append(embedder.embed_query("a cat"))
        return [*vectors, embedder.embed(ITEMS[kind][0], precision="int8", on_too_long="truncate")]


def use(place: Path, kind: str, want: list[np.ndarray], *, same: bool) -> None:
    """Load a bundle, embed and ask the commands; its vectors must be numbers, or the ``same``."""
    for got, expected in zip(results(kind, place), want, strict=True):
        assert got.shape == expected.shape
        assert np.isfinite(got).all()
        if same:
            np.testing.assert_allclose(got, expected, atol=1e-5)
    command("info", str(place))
    command("verify", str(place))
