"""What is written with vectors about where they come from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fmrt._version import __version__
from fmrt.bundle.bundle import Bundle, sha256
from fmrt.bundle.manifest import MANIFEST_FILE, Manifest, Variant
from fmrt.embedding.request import Request


def provenance_of(bundle: Bundle, variant: Variant, request: Request) -> dict[str, Any]:
    """What the vectors of one run of a bundle depend on, as JSON.

    Args:
        bundle: The model.
        variant: The graph.
        request: The options, as the model follows them.
    """
    tower, post = request.tower, request.post
    source = bundle.manifest.source
    scaled = post.precision.name in ("int8", "uint8")
    return {
        "fmrt": __version__,
        "model": source.model,
        "revision": source.revision,
        "space": space_of(bundle.manifest),
        "bundle": bundle.manifest_sha256 or sha256(bundle.path / MANIFEST_FILE),
        "modality": tower.modality,
        "variant": variant.name,
        "variant_sha256": variant.sha256,
        "prompt": request.prompt,
        "normalize": tower.normalize or post.normalize,
        "dim": post.dim,
        "truncate_dim": request.options.truncate_dim,
        "precision": post.precision.name,
        "scale": post.scale if scaled else None,
    }


def space_of(manifest: Manifest) -> str:
    """What vectors must share to be compared, as a hash: weights, adapters, pooling, dimensions.

    Variants, prompts, normalization, precision and modality may differ, and so may the bundle: one
    that was exported again, or has got another variant, has the same space.
    """
    source = manifest.source
    facts = {
        "weights": source.weights_sha256,
        "adapters": [[a.weights_sha256, a.weight] for a in source.adapters],
        "dim": manifest.dim,
        "towers": sorted([t.modality, t.pooling, t.embedding_output] for t in manifest.towers),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
