"""A tiny real bundle, made without torch: its reference vectors are computed in NumPy alone."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import REFERENCE_FILE, Manifest, Source, TextInput, Tower, Variant

os.environ["HF_HUB_OFFLINE"] = "1"
# How long an example takes is the machine's, which has other work.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

DIM = 12
MAX_LENGTH = 16
WORDS = (
    "a",
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "road",
    "red",
    "blue",
    "query",
    ":",
    "one",
    "two",
    "three",
)
VOCABULARY = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
QUERY_PROMPT = "query: "
# Empty, one word, unknown words, over-long, not ASCII.
TEXTS = ["", "cat", "the red cat sat on the mat", "an unknown word", "dog " * 40, "日本 cat 😀"]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a bag-of-words model; tests that change it copy it first."""
    directory = tmp_path_factory.mktemp("tiny") / "bundle"
    (directory / "onnx").mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = rng.standard_normal((len(VOCABULARY), DIM)).astype(np.float32)
    types = rng.standard_normal((2, DIM)).astype(np.float32)
    make_tokenizer().save(str(directory / "tokenizer.json"))
    write_graph(directory / "onnx/model.onnx", words, types)
    write_reference(directory / REFERENCE_FILE, words, types)
    make_manifest(directory).write(directory)
    return directory


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(name, VOCABULARY[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, special)
    return tokenizer


def write_graph(path: Path, words: np.ndarray, types: np.ndarray) -> None:
    """Word and type vectors added, their mean where the mask is 1, unit length."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["word_vectors"]),
        node("Gather", ["types", "token_type_ids"], ["type_vectors"]),
        node("Add", ["word_vectors", "type_vectors"], ["last_hidden_state"]),
        node("Cast", ["attention_mask"], ["flat_mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["flat_mask", "last"], ["mask"]),
        node("Mul", ["last_hidden_state", "mask"], ["masked"]),
        node("ReduceSum", ["masked", "sequence"], ["sum"], keepdims=0),
        node("ReduceSum", ["mask", "sequence"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["mean"]),
        node("LpNormalization", ["mean"], ["sentence_embedding"], axis=-1, p=2),
    ]
    constants = {
        "words": words,
        "types": types,
        "last": np.array([-1], np.int64),
        "sequence": np.array([1], np.int64),
    }
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        [
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, DIM]),
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", DIM]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_reference(path: Path, words: np.ndarray, types: np.ndarray) -> None:
    items = [{"text": text, "prompt": ""} for text in TEXTS]
    items += [{"text": text, "prompt": QUERY_PROMPT} for text in TEXTS[:3]]
    rows = [token_ids(item["prompt"] + item["text"]) for item in items]
    means = np.stack([(words[row] + types[0]).mean(axis=0) for row in rows])
    tensors = {
        "text.embeddings": means / np.linalg.norm(means, axis=1, keepdims=True),
        "text.lengths": np.array([len(row) for row in rows], np.int64),
    }
    save_file(tensors, path, {"text": json.dumps(items)})


def token_ids(text: str) -> list[int]:
    """What the tokenizer should give, worked out without it."""
    own = [VOCABULARY.get(w, 1) for w in re.findall(r"\w+|[^\w\s]+", text.lower())]
    return [VOCABULARY["[CLS]"], *own[: MAX_LENGTH - 2], VOCABULARY["[SEP]"]]


def make_manifest(directory: Path) -> Manifest:
    graph = record_of(directory / "onnx/model.onnx")
    return Manifest(
        source=Source("tiny/bag-of-words", "abc123", "0" * 64),
        packages={"numpy": np.__version__},
        model_type="bag-of-words",
        dim=DIM,
        towers=(
            Tower(
                modality="text",
                inputs=("input_ids", "attention_mask", "token_type_ids"),
                outputs=("last_hidden_state", "sentence_embedding"),
                embedding_output="sentence_embedding",
                pooling="mean",
                normalize=True,
                input=TextInput(
                    MAX_LENGTH,
                    pad_token_id=0,
                    prompts={"query": QUERY_PROMPT},
                    vocab_size=len(VOCABULARY),
                ),
            ),
        ),
        matryoshka_dims=(8, 4),
        files={name: record_of(directory / name) for name in ("tokenizer.json", REFERENCE_FILE)},
        variants=(Variant("fp32", "onnx/model.onnx", "any", "fp32", graph.sha256, graph.size),),
        fmrt_version="0.1.0",
    )
