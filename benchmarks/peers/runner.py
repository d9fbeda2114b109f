"""One peer in its own environment: takes orders as lines of JSON, answers in lines of JSON.

``python runner.py PEER MODEL BUNDLE MAX_LENGTH``. MODEL is the model's directory for PyTorch,
BUNDLE fmrt's export of it. An order is ``{"texts": [...], "out": file.npy}`` (embed them all, and
write the vectors) or ``{"query": text, "repeats": n}`` (embed one text again and again). The
answer is ``{"seconds": [...]}``, one a repeat. This file needs numpy and the peer's packages alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Encode = Callable[[Sequence[str]], np.ndarray]
DIM = 384


def fmrt(_: Path, bundle: Path, __: int, variant: str | None = None) -> Encode:
    import fmrt

    embedder = fmrt.Embedder(bundle, variant=variant)
    return lambda texts: embedder.embed(texts, on_too_long="truncate", show_progress=False)


def fmrt_int8(model: Path, bundle: Path, max_length: int) -> Encode:
    names = [v["name"] for v in json.loads((bundle / "fmrt.json").read_text())["variants"]]
    return fmrt(model, bundle, max_length, next(name for name in names if "int8" in name))


def fmrt_bf16(_: Path, bundle: Path, __: int) -> Encode:
    import fmrt

    embedder = fmrt.Embedder(bundle, variant="bf16", provider="openvino")
    return lambda texts: embedder.embed(texts, on_too_long="truncate", show_progress=False)


def sentence_transformers(
    model: Path, _: Path, max_length: int, backend: str = "torch", **options: Any
) -> Encode:
    """Its defaults."""
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(model), device="cpu", backend=backend, **options)
    peer.max_seq_length = max_length
    return lambda texts: peer.encode(list(texts), show_progress_bar=False)


def sentence_transformers_onnx(model: Path, bundle: Path, max_length: int) -> Encode:
    """Its ONNX backend on the graph that it exports itself."""
    return sentence_transformers(model, bundle, max_length, "onnx")


def sentence_transformers_bf16(model: Path, bundle: Path, max_length: int) -> Encode:
    """Its torch backend with the model in bf16."""
    options = {"model_kwargs": {"dtype": "bfloat16"}}
    return sentence_transformers(model, bundle, max_length, **options)


def fastembed(_: Path, bundle: Path, __: int, batch: int = 256) -> Encode:
    """Its defaults, but for the model, which is a local directory."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        "local/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="local"),
        dim=DIM,
        model_file="onnx/model.onnx",
    )
    peer = TextEmbedding("local/model", specific_model_path=str(bundle))
    return lambda texts: np.stack(list(peer.embed(texts, batch_size=batch)))


def fastembed_8(model: Path, bundle: Path, max_length: int) -> Encode:
    """The batch size that is its best here."""
    return fastembed(model, bundle, max_length, 8)


def light_embed(_: Path, bundle: Path, __: int) -> Encode:
    """Its defaults."""
    from light_embed import TextEmbedding

    config = {
        "onnx_file": "onnx/model.onnx",
        "onnx_output_map": {"last_hidden_state": "token_embeddings"},
        "pooling_config_path": "1_Pooling",
        "normalize": True,
    }
    peer = TextEmbedding(str(bundle), model_config=config)
    return lambda texts: np.asarray(peer.encode(list(texts)))


def onnxruntime(_: Path, bundle: Path, max_length: int) -> Encode:
    """ONNX Runtime as a first attempt has it: its defaults, batches of 32 as the texts come."""
    import onnxruntime as ort

    tokenizer = tokenizer_of(bundle, max_length)
    tokenizer.enable_padding(pad_id=0)
    session = ort.InferenceSession(bundle / "onnx/model.onnx", providers=["CPUExecutionProvider"])

    def encode(texts: Sequence[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), 32):
            found = tokenizer.encode_batch(texts[start : start + 32])
            ids = np.array([e.ids for e in found])
            mask = np.array([e.attention_mask for e in found])
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            parts.append(session.run(["sentence_embedding"], feeds)[0])
        return np.concatenate(parts)

    return encode


def openvino_default(_: Path, bundle: Path, max_length: int) -> Encode:
    """OpenVINO as a first attempt has it: its defaults, batches of 32 as the texts come."""
    import openvino as ov

    tokenizer = tokenizer_of(bundle, max_length)
    model = ov.Core().read_model(bundle / "onnx/model.onnx")
    index = output_of(model)
    compiled = ov.Core().compile_model(model, "CPU")

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = [e.ids for e in tokenizer.encode_batch_fast(list(texts))]
        parts = [ids[start : start + 32] for start in range(0, len(ids), 32)]
        return np.concatenate([np.array(compiled(padded(part))[index]) for part in parts])

    return encode


def openvino_bf16(model: Path, bundle: Path, max_length: int) -> Encode:
    """Tuned by hand as fp32 is, in the precision that OpenVINO takes by itself."""
    return openvino(model, bundle, max_length, {})


def openvino(
    _: Path,
    bundle: Path,
    max_length: int,
    precision: dict[str, Any] | None = None,
) -> Encode:
    """OpenVINO tuned by hand: a stream a core, sorted batches of at most 512 tokens.

    A single text runs on a second compiled model, whose one stream has all cores. The precision is
    fp32 unless another is given.
    """
    import openvino as ov

    tokenizer = tokenizer_of(bundle, max_length)
    core = ov.Core()
    model = core.read_model(bundle / "onnx/model.onnx")
    index = output_of(model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options = {"INFERENCE_PRECISION_HINT": "f32"} if precision is None else precision
    options = {**options, "INFERENCE_NUM_THREADS": cores}
    many = core.compile_model(model, "CPU", {**options, "NUM_STREAMS": cores})
    one = core.compile_model(model, "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"})
    queue = ov.AsyncInferQueue(many, cores)

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = [e.ids for e in tokenizer.encode_batch_fast(list(texts))]
        if len(ids) == 1:
            return np.array(one(padded(ids))[index])
        out = np.empty((len(ids), DIM), np.float32)

        def done(request: Any, rows: list[int]) -> None:
            out[rows] = request.get_output_tensor(index).data

        queue.set_callback(done)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        while order:
            rows = order[: max(1, 512 // len(ids[order[0]]))]
            del order[: len(rows)]
            queue.start_async(padded([ids[i] for i in rows]), rows)
        queue.wait_all()
        return out

    return encode


def output_of(model: Any) -> int:
    """Index of the embedding among a model's outputs."""
    names = [output.get_names() for output in model.outputs]
    return next(i for i, found in enumerate(names) if "sentence_embedding" in found)


def tokenizer_of(bundle: Path, max_length: int) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def padded(rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    shape = (len(rows), max(map(len, rows)))
    feeds = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask")}
    for i, row in enumerate(rows):
        feeds["input_ids"][i, : len(row)] = row
        feeds["attention_mask"][i, : len(row)] = 1
    return {**feeds, "token_type_ids": np.zeros(shape, np.int64)}


PEERS: dict[str, Callable[[Path, Path, int], Encode]] = {
    "fmrt": fmrt,
    "fmrt-int8": fmrt_int8,
    "fmrt-bf16": fmrt_bf16,
    "sentence-transformers": sentence_transformers,
    "sentence-transformers-bf16": sentence_transformers_bf16,
    "sentence-transformers-onnx": sentence_transformers_onnx,
    "openvino": openvino,
    "openvino-default": openvino_default,
    "openvino-bf16": openvino_bf16,
    "fastembed": fastembed,
    "fastembed-8": fastembed_8,
    "light-embed": light_embed,
    "onnxruntime": onnxruntime,
}


def answer(encode: Encode, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order."""
    seconds = []
    texts = order.get("texts") or [order["query"]]
    vectors = np.empty((0, DIM))
    for _ in range(order.get("repeats", 1)):
        start = time.perf_counter()
        vectors = encode(texts)
        seconds.append(time.perf_counter() - start)
    if "out" in order:
        np.save(order["out"], np.asarray(vectors, np.float32))
    return {"seconds": seconds}


def main(peer: str, model: str, bundle: str, max_length: str) -> None:
    """Load the peer, say so, and answer until the orders end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no answer
    encode = PEERS[peer](Path(model), Path(bundle), int(max_length))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(encode, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
