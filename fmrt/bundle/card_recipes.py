"""How fmrt and others embed with a bundle, as code that a model card shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Manifest


@dataclass(frozen=True)
class Recipe:
    """One example.

    Attributes:
        title: The packages that it needs.
        language: The language of the code, as Markdown names it.
        code: The code, which runs as it is; ``$REPOSITORY``, ``$DIM`` and ``$OUTPUT`` stand for the
            bundle's own.
        suits: A function that says whether the example works with a bundle.
    """

    title: str
    language: str
    code: str
    suits: Callable[[Manifest], bool]


def recipes(bundle: Bundle, repository: str) -> list[Recipe]:
    """The examples for a bundle, with its names in them."""
    manifest = bundle.manifest
    tower = manifest.tower()
    return [
        Recipe(
            recipe.title,
            recipe.language,
            recipe.code.strip()
            .replace("$REPOSITORY", repository)
            .replace("$DIM", str(manifest.dim))
            .replace("$OUTPUT", tower.embedding_output),
            recipe.suits,
        )
        for recipe in RECIPES
        if recipe.suits(manifest)
    ]


def _texts(manifest: Manifest) -> bool:
    return "text" in manifest.modalities


def _texts_alone(manifest: Manifest) -> bool:
    return manifest.modalities == ("text",)


def _images_alone(manifest: Manifest) -> bool:
    return manifest.modalities == ("image",) and not manifest.heads


def _sounds_alone(manifest: Manifest) -> bool:
    return manifest.modalities == ("audio",)


def _segments(manifest: Manifest) -> bool:
    return bool(manifest.heads)


RECIPES = (
    Recipe(
        "fmrt",
        "python",
        """
# pip install fmrt
import fmrt

with fmrt.Embedder("$REPOSITORY") as embedder:
    vectors = embedder.embed(["a text", "another"], modality="text")
""",
        _texts,
    ),
    Recipe(
        "fmrt",
        "python",
        """
# pip install "fmrt[image]"
import fmrt

with fmrt.Embedder("$REPOSITORY") as embedder:
    vectors = embedder.embed(["photo.jpg"])
""",
        _images_alone,
    ),
    Recipe(
        "fmrt",
        "python",
        """
# pip install "fmrt[audio]"
import fmrt

with fmrt.Embedder("$REPOSITORY") as embedder:
    vectors = embedder.embed(["sound.wav"])
""",
        _sounds_alone,
    ),
    Recipe(
        "fmrt",
        "python",
        """
# pip install "fmrt[image]"
import fmrt

segmenter = fmrt.Segmenter("$REPOSITORY")
mask = segmenter.segment("photo.jpg", points=[(20, 10)]).mask()
""",
        _segments,
    ),
    Recipe(
        "transformers.js",
        "js",
        """
// npm install @huggingface/transformers
import { AutoModel, AutoTokenizer } from "@huggingface/transformers";

const tokenizer = await AutoTokenizer.from_pretrained("$REPOSITORY");
// "fp16", "q8" and "q4" where the table of graphs has model_fp16, model_quantized and model_q4.
const model = await AutoModel.from_pretrained("$REPOSITORY", { dtype: "fp32" });
const inputs = tokenizer(["a text", "another"], { padding: true, truncation: true });
const vectors = (await model(inputs)).$OUTPUT.tolist();
""",
        _texts_alone,
    ),
    Recipe(
        "transformers.js",
        "js",
        """
// npm install @huggingface/transformers
import { AutoModel, AutoProcessor, load_image } from "@huggingface/transformers";

const processor = await AutoProcessor.from_pretrained("$REPOSITORY");
// "fp16" and "q8" where the table of graphs has model_fp16 and model_quantized.
const model = await AutoModel.from_pretrained("$REPOSITORY", { dtype: "fp32" });
const inputs = await processor([await load_image("photo.jpg")]);
const vectors = (await model(inputs)).$OUTPUT.tolist();
""",
        _images_alone,
    ),
    Recipe(
        "sentence-transformers, ONNX backend",
        "python",
        """
# pip install "sentence-transformers[onnx]"
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(
    "$REPOSITORY", backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"}
)
vectors = model.encode(["a text", "another"])
""",
        _texts_alone,
    ),
    Recipe(
        "fastembed",
        "python",
        """
# pip install fastembed
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

TextEmbedding.add_custom_model(
    "$REPOSITORY",
    sources=ModelSource(hf="$REPOSITORY"),
    model_file="onnx/model.onnx",
    output_name="$OUTPUT",
    pooling=PoolingType.DISABLED,
    normalization=False,
    dim=$DIM,
)
vectors = list(TextEmbedding("$REPOSITORY").embed(["a text", "another"]))
""",
        _texts_alone,
    ),
    Recipe(
        "light-embed",
        "python",
        """
# pip install light-embed
from huggingface_hub import snapshot_download
from light_embed import TextEmbedding

model = TextEmbedding(
    snapshot_download("$REPOSITORY"),
    model_config={
        "onnx_file": "onnx/model.onnx",
        "onnx_output_map": {"$OUTPUT": "sentence_embedding"},
        "normalize": False,
    },
)
vectors = model.encode(["a text", "another"])
""",
        _texts_alone,
    ),
    Recipe(
        "ONNX Runtime and tokenizers alone",
        "python",
        """
# pip install onnxruntime tokenizers huggingface_hub
from pathlib import Path

import numpy as np
import onnxruntime
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

folder = Path(snapshot_download("$REPOSITORY"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts and pads
found = tokenizer.encode_batch(["a text", "another"])
inputs = {
    "input_ids": np.array([e.ids for e in found]),
    "attention_mask": np.array([e.attention_mask for e in found]),
    "token_type_ids": np.array([e.type_ids for e in found]),
}
session = onnxruntime.InferenceSession(folder / "onnx/model.onnx")
wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
vectors = session.run(["$OUTPUT"], wanted)[0]
""",
        _texts_alone,
    ),
    Recipe(
        "ONNX Runtime and transformers' image processor",
        "python",
        """
# pip install onnxruntime transformers pillow huggingface_hub
from pathlib import Path

import onnxruntime
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoImageProcessor

folder = Path(snapshot_download("$REPOSITORY"))
processor = AutoImageProcessor.from_pretrained(folder)
pixels = processor(Image.open("photo.jpg").convert("RGB"), return_tensors="np")
session = onnxruntime.InferenceSession(folder / "onnx/model.onnx")
vectors = session.run(["$OUTPUT"], {"pixel_values": pixels["pixel_values"]})[0]
""",
        _images_alone,
    ),
    Recipe(
        "ONNX Runtime and transformers' feature extractor",
        "python",
        """
# pip install onnxruntime transformers soundfile huggingface_hub
from pathlib import Path

import onnxruntime
import soundfile
from huggingface_hub import snapshot_download
from transformers import AutoFeatureExtractor

folder = Path(snapshot_download("$REPOSITORY"))
extractor = AutoFeatureExtractor.from_pretrained(folder)
samples, rate = soundfile.read("sound.wav", dtype="float32")  # one channel, at the model's rate
inputs = extractor(
    samples, sampling_rate=rate, return_tensors="np", return_attention_mask=True
)
session = onnxruntime.InferenceSession(folder / "onnx/model.onnx")
wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
vectors = session.run(["$OUTPUT"], wanted)[0]
""",
        _sounds_alone,
    ),
)
