"""CLIP, SigLIP and CLAP: texts, and images or sounds, in one space from one bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers import CONFIG_MAPPING, AutoFeatureExtractor, AutoModel, AutoTokenizer

import fmrt
from fmrt.cli import main
from fmrt.errors import InputError, OptionError
from fmrt.export.quiet import quiet
from fmrt.export.vision.image_processor import ImageProcessor
from tests.export.audio import AUDIO
from tests.export.models import make_tokenizer
from tests.export.reference import FILE_ERROR, assert_parity
from tests.export.strangers import check_for_strangers
from tests.export.test_vision import photographs
from tests.export.vision import TRANSFORMER

TOWERS = ("clip", "siglip", "clap")
LENGTH = 24
TEXTS = ["a photo of a cat", "x", "", "Ünïcödé, 日本語 and 😀", "many words " * 30]


def save(model_type: str, directory: Path) -> Path:
    tokenizer = make_tokenizer("bpe")
    tokenizer.model_max_length = LENGTH
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "projection_dim": 16,
        "projection_size": 32,
        "initializer_range": 0.1,
    }
    options: dict[str, Any] = {"text_config": text, "projection_dim": 16}
    if model_type == "clap":
        tiny = next(tiny for tiny in AUDIO if tiny.name == "clap")
        text |= {"max_position_embeddings": LENGTH + tokenizer.pad_token_id + 1}
        options["audio_config"] = {**tiny.config, "projection_dim": 16}
        processor = transformers.ClapFeatureExtractor(**tiny.options)
    else:
        options["vision_config"] = TRANSFORMER
        kind = {"clip": "CLIPImageProcessorPil", "siglip": "SiglipImageProcessorPil"}[model_type]
        size = {"height": 32, "width": 32}
        crop = {"crop_size": size} if model_type == "clip" else {}
        processor = getattr(transformers, kind)(size=size, **crop)
    torch.manual_seed(0)
    with quiet():
        AutoModel.from_config(CONFIG_MAPPING[model_type](**options)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def pytorch(directory: Path, others: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """One item at a time, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    with quiet(), torch.no_grad():
        model = AutoModel.from_pretrained(directory).eval()
        texts, rest = [], []
        for text in TEXTS:
            full = {"padding": "max_length"} if model.config.model_type == "siglip" else {}
            batch = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt", **full)
            names = ["input_ids"] if full else ["input_ids", "attention_mask"]
            output = model.get_text_features(**{name: batch[name] for name in names})
            texts.append(normalize(output.pooler_output, dim=-1))
        for item in others:
            if isinstance(item, bytes):
                pixels = torch.from_numpy(ImageProcessor(directory)(item))[None]
                output = model.get_image_features(pixel_values=pixels)
            else:
                extractor = AutoFeatureExtractor.from_pretrained(directory)
                batch = extractor(item, sampling_rate=48_000, return_tensors="pt")
                output = model.get_audio_features(input_features=batch["input_features"].float())
            rest.append(normalize(output.pooler_output, dim=-1))
    return torch.cat(texts).numpy(), torch.cat(rest).numpy()


def sounds() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    time = np.arange(60_000) / 48_000
    return [
        (np.sin(time * f) * 0.3 + rng.normal(0, 0.01, len(time))).astype(np.float32)
        for f in (900, 5000)
    ]


@pytest.mark.parametrize("model_type", TOWERS)
def test_both_towers_match_pytorch(model_type: str, tmp_path: Path) -> None:
    directory = save(model_type, tmp_path / "model")
    bundle = fmrt.export_model(directory, tmp_path / "bundle")
    check_for_strangers(bundle, directory)
    other = "audio" if model_type == "clap" else "image"
    assert bundle.manifest.modalities == ("text", other)
    items: list[Any] = sounds() if other == "audio" else photographs()
    texts, rest = pytorch(directory, items)
    with fmrt.Embedder(bundle) as embedder:
        assert_parity(embedder.embed(TEXTS, on_too_long="truncate"), texts, FILE_ERROR)
        assert_parity(embedder.embed(items), rest, FILE_ERROR)
        assert np.array_equal(embedder.embed_query(TEXTS[0]), embedder.embed(TEXTS[:1])[0])
        with pytest.raises(InputError, match=r"(?i)no such file"):
            embedder.embed(["a photo of a cat"], modality=other)
        with pytest.raises(InputError, match="expected a string"):
            embedder.embed(items, modality="text")
    alone = fmrt.Embedder(bundle, modality="text")
    with alone, pytest.raises(OptionError, match="opened for text alone"):
        alone.embed(items, modality=other)
    assert main(["verify", str(tmp_path / "bundle")]) == 0
    assert main(["info", str(tmp_path / "bundle")]) == 0


@pytest.mark.parametrize("unit", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_sentence_transformers_directory_of_two_towers(tmp_path: Path, unit: bool) -> None:
    """In the old form, with its folder; normalized only if a module says so."""
    save("clip", tmp_path / "model/0_CLIPModel")
    kinds = ["CLIPModel", "Normalize"] if unit else ["CLIPModel"]
    entries = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (tmp_path / "model/modules.json").write_text(json.dumps(entries))
    with quiet():
        model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    bundle = fmrt.export_model(tmp_path / "model", tmp_path / "bundle")
    texts = TEXTS[:4]
    with fmrt.Embedder(bundle) as embedder, quiet():
        assert_parity(embedder.embed(texts), model.encode(texts, batch_size=1), FILE_ERROR)
        assert bundle.manifest.tower("text").normalize == unit
