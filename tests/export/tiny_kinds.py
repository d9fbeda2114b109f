"""A tiny random model of each kind, as transformers 4 writes them; runs where that is installed.

python tiny_kinds.py TOKENIZER FOLDER makes a directory for each kind in FOLDER/models, exports it
to FOLDER/bundles, and lets optimum-cli convert some of them in FOLDER/onnx.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import CLIPTextWithProjectionOnnxConfig, ViTOnnxConfig
from sizes import TRANSFORMER, WAVEFORM

import fmrt

CLI = (sys.executable, "-m", "optimum.commands.optimum_cli")
LENGTH = 24
PIXELS = {**TRANSFORMER, "image_size": 32, "patch_size": 8}
SQUARE = {"height": 32, "width": 32}


def text_config(tokenizer: Any) -> dict[str, Any]:
    """The sizes of a model of texts, and its special tokens."""
    tokens = {"pad": "pad", "bos": "cls", "eos": "sep"}
    ids = {f"{k}_token_id": getattr(tokenizer, f"{v}_token_id") for k, v in tokens.items()}
    return {**TRANSFORMER, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}


def encoder(tokenizer: Any, place: Path) -> None:
    """BERT."""
    transformers.BertModel(transformers.BertConfig(**text_config(tokenizer))).save_pretrained(place)
    tokenizer.save_pretrained(place)


def decoder(tokenizer: Any, place: Path) -> None:
    """Llama."""
    config = transformers.LlamaConfig(**text_config(tokenizer), num_key_value_heads=2)
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)


def image(_: Any, place: Path) -> None:
    """DINOv2, with its pooled output."""
    transformers.Dinov2Model(transformers.Dinov2Config(**PIXELS)).save_pretrained(place)
    size = {"shortest_edge": 36}
    transformers.BitImageProcessor(size=size, crop_size=SQUARE).save_pretrained(place)


def audio(_: Any, place: Path) -> None:
    """wav2vec2."""
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**WAVEFORM)).save_pretrained(place)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(place)


def towers(tokenizer: Any, place: Path) -> None:
    """CLIP."""
    dim = {"projection_dim": 16}
    config = transformers.CLIPConfig(
        text_config={**text_config(tokenizer), **dim}, vision_config={**PIXELS, **dim}, **dim
    )
    transformers.CLIPModel(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    transformers.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE).save_pretrained(place)


def lora(tokenizer: Any, place: Path) -> None:
    """An adapter next to its base."""
    base = place.with_name(encoder.__name__)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "dense"])
    model = peft.get_peft_model(transformers.AutoModel.from_pretrained(base), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data += torch.randn_like(value) * 0.2
    model.save_pretrained(place)


def by_optimum_cli(folder: Path) -> None:
    """Graphs as optimum-cli makes them; of a decoder with position ids, and with past keys."""
    tasks = {"image": [""], "audio": [""], "towers": [""], "decoder": ["", "-with-past"]}
    for kind, endings in tasks.items():
        for ending in endings:
            place = folder / "onnx" / f"{kind}{ending}"
            options = ("--task", f"feature-extraction{ending}", "--library", "transformers")
            source = ("--model", folder / "models" / kind)
            subprocess.run([*CLI, "export", "onnx", *source, *options, place], check=True)


def quantized(plain: Path, place: Path) -> None:
    """The layout of transformers.js, of a model that has no tokenizer."""
    shutil.copytree(plain, place, ignore=shutil.ignore_patterns("*.onnx"))
    (place / "onnx").mkdir()
    shutil.copyfile(plain / "model.onnx", place / "onnx" / "model.onnx")
    options = {"per_channel": True, "extra_options": {"EnableSubgraph": True}}
    target = place / "onnx" / "model_quantized.onnx"
    kind = QuantType.QUInt8
    quantize_dynamic(
        plain / "model.onnx", target, weight_type=kind, op_types_to_quantize=["MatMul"], **options
    )


class ImagesOfTowers(ViTOnnxConfig):
    """What the conversion script of transformers.js adds: a vision tower with its projection."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """The vectors, and what they are made of."""
        return {name: {0: "batch_size"} for name in ("image_embeds", "last_hidden_state")}


def split(model: Path, place: Path) -> None:
    """The layout of transformers.js: a graph for each tower, and quantized ones."""
    skipped = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(model, place, ignore=skipped)
    (place / "onnx").mkdir()
    towers = {
        "text_model": (transformers.CLIPTextModelWithProjection, CLIPTextWithProjectionOnnxConfig),
        "vision_model": (transformers.CLIPVisionModelWithProjection, ImagesOfTowers),
    }
    for name, (kind, settings) in towers.items():
        tower = kind.from_pretrained(model).eval()
        config = settings(tower.config, task="feature-extraction")
        file = place / "onnx" / f"{name}.onnx"
        export(model=tower, config=config, output=file, opset=14)
        target = file.with_name(f"{name}_quantized.onnx")
        quantize_dynamic(
            file, target, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"]
        )


KINDS: tuple[Callable[[Any, Path], None], ...] = (encoder, decoder, image, audio, towers, lora)


def main() -> None:
    """Write all."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], model_max_length=LENGTH)
    folder = Path(sys.argv[2])
    for kind in KINDS:
        torch.manual_seed(0)
        directory = folder / "models" / kind.__name__
        kind(tokenizer, directory)
        bundle = folder / "bundles" / kind.__name__
        bundle.parent.mkdir(exist_ok=True)
        fmrt.export_model(directory, bundle, exporter="optimum", report=print)
    by_optimum_cli(folder)
    for name in ("image", "audio"):
        quantized(folder / "onnx" / name, folder / "onnx" / f"{name}-quantized")
    split(folder / "models" / "towers", folder / "onnx" / "towers-split")


if __name__ == "__main__":
    main()
