"""A model so small that whatever is not inference shows: two layers, 128 wide, real tokens."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from benchmarks.measuring.corpus import docstrings
from benchmarks.measuring.minilm import MODEL

HIDDEN = 128


def write_tiny_model(directory: Path) -> Path:
    """A seeded random BERT with MiniLM's tokenizer and modules; returns its directory."""
    shutil.copytree(MODEL, directory, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(
        MODEL,
        num_hidden_layers=2,
        hidden_size=HIDDEN,
        num_attention_heads=2,
        intermediate_size=4 * HIDDEN,
    )
    BertModel(config).save_pretrained(directory)
    pooling = directory / "1_Pooling/config.json"
    values = json.loads(pooling.read_text()) | {"word_embedding_dimension": HIDDEN}
    pooling.write_text(json.dumps(values))
    return directory


def write_lines(path: Path, count: int, words: tuple[int, int], seed: int = 0) -> Path:
    """``count`` lines of docstrings' words, of a number that is even over its logarithm."""
    chosen = random.Random(seed)
    pool = " ".join(docstrings()).split()
    with path.open("w") as file:
        for _ in range(count):
            size = round(words[0] * (words[1] / words[0]) ** chosen.random())
            start = chosen.randrange(len(pool) - size)
            file.write(" ".join(pool[start : start + size]) + "\n")
    return path
