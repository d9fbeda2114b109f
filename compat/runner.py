"""Embeds with one library, in its own environment: JSON from standard input, JSON to the output.

python runner.py PEER BUNDLE GRAPH takes ``{"texts": ..., "packages": ...}``, and gives
``{"vectors": ..., "versions": ...}``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Encode = Callable[[Sequence[str]], Any]
DIM = 384
# What Chroma looks for before it downloads its own model.
CHROMA = (
    *("config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"),
    "vocab.txt",
)


def fastembed(bundle: Path, graph: str) -> Encode:
    """A custom model in a local directory, whose vectors are the graph's."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        "local/model",
        sources=ModelSource(url="local"),
        model_file=graph,
        output_name="sentence_embedding",
        pooling=PoolingType.DISABLED,
        normalization=False,
        dim=DIM,
    )
    model = TextEmbedding("local/model", specific_model_path=str(bundle))
    return lambda texts: list(model.embed(texts))


def light_embed(bundle: Path, graph: str) -> Encode:
    """A local directory."""
    from light_embed import TextEmbedding

    config = {
        "onnx_file": graph,
        "onnx_output_map": {"sentence_embedding": "sentence_embedding"},
        "normalize": False,
    }
    return TextEmbedding(str(bundle), model_config=config).encode


def txtai(bundle: Path, graph: str) -> Encode:
    """A graph and a tokenizer; it pools the graph's first output."""
    from txtai import Embeddings

    config = {"path": str(bundle / graph), "tokenizer": str(bundle / "tokenizer.json")}
    return Embeddings(config).batchtransform


def chroma(bundle: Path, graph: str) -> Encode:
    """Its default embedding function; it pools the graph's first output."""
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    place = Path(tempfile.mkdtemp())
    (place / "onnx").mkdir()
    for name in CHROMA:
        (place / "onnx" / name).symlink_to(bundle / name)
    (place / "onnx/model.onnx").symlink_to(bundle / graph)
    function = ONNXMiniLM_L6_V2()
    function.DOWNLOAD_PATH = place
    return lambda texts: function(list(texts))


def sentence_transformers(bundle: Path, graph: str) -> Encode:
    """Its ONNX back end."""
    from sentence_transformers import SentenceTransformer

    options = {"file_name": graph, "provider": "CPUExecutionProvider"}
    return SentenceTransformer(str(bundle), backend="onnx", model_kwargs=options).encode


PEERS = {
    "fastembed": fastembed,
    "light-embed": light_embed,
    "txtai": txtai,
    "chroma": chroma,
    "sentence-transformers": sentence_transformers,
}


def main(name: str, bundle: str, graph: str) -> None:
    """Answer the question on standard input."""
    question = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        vectors = PEERS[name](Path(bundle).resolve(), graph)(question["texts"])
        rows = [[float(x) for x in row] for row in vectors]
    versions = {package: version(package) for package in question["packages"]}
    json.dump({"vectors": rows, "versions": versions}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
