"""What takes the place of functions of transformers in a trace computes what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel
from transformers.exporters.utils import apply_patches

from conformance.outcome import VERIFIED, outcome
from fmrt.export.patches import ALL, take_patches

LENGTH = 7
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
TINY: dict[str, dict[str, Any]] = {
    "mamba": {**SIZES, "state_size": 4, "time_step_rank": 4},
    "rwkv": {**SIZES, "context_length": 64},
    "recurrent_gemma": {**SIZES, "head_dim": 8, "lru_width": 32, "intermediate_size": 64},
    "switch_transformers": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_experts": 4,
        "vocab_size": 99,
    },
}


def test_each_patch_has_a_place() -> None:
    take_patches()
    for place in ALL:
        model, _, name = place.partition(".")
        owner: Any = __import__(f"transformers.models.{model}.modeling_{model}", fromlist=["x"])
        for part in name.split("."):
            owner = getattr(owner, part)
        assert callable(owner)


@pytest.mark.parametrize("model_type", TINY)
def test_a_patched_model_gives_what_the_model_gives(model_type: str) -> None:
    take_patches()
    torch.manual_seed(0)
    model: Any = AutoModel.from_config(CONFIG_MAPPING[model_type](**TINY[model_type])).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    ids = torch.randint(3, 99, (2, LENGTH))
    with torch.no_grad():
        want = model(input_ids=ids, use_cache=False).last_hidden_state
        with apply_patches("dynamo"):
            got = model(input_ids=ids, use_cache=False).last_hidden_state
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["mamba", "dbrx", "llama4_text", "switch_transformers"])
def test_a_graph_of_a_patched_model_is_verified(model_type: str, tmp_path: Path) -> None:
    assert outcome(model_type, tmp_path).status == VERIFIED
