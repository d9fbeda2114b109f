"""The models under test: bundles, and the PyTorch model that a bundle was made from."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle
from fmrt.embed_options import EmbedOptions
from fmrt.embedder import Embedder
from fmrt.errors import InputError, OptionError
from fmrt.evaluation.dataset import Dataset, Side
from fmrt.evaluation.neighbours import Vectors
from fmrt.evaluation.segments import overlaps
from fmrt.segmenter import Segmenter
from fmrt.system.memory import PeakMemory

# Types of vectors whose cosine can be computed.
_PRECISIONS = ("float32", "float16", "int8")
PYTORCH = "pytorch"
_TEXTS_ALONE = "--against pytorch is for texts; fmrt verify compares other models"


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a model, in the same run as its measures.

    Attributes:
        items: The number of items that were embedded.
        seconds: The time of embedding them.
        items_per_second: The items divided by the seconds.
        file_bytes: The size of the graph and its weights; None where there is none.
        memory_bytes: The most that the process grew by while the model was loaded and embedded;
            None where the system does not tell.
    """

    items: int
    seconds: float
    items_per_second: float
    file_bytes: int | None
    memory_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """A data set's vectors, float32 ``[n, dim]`` by side, and why rows of them are missing."""

    vectors: Mapping[str, Vectors]
    failed: Mapping[str, Mapping[int, str]]
    cost: Cost


class Model(Protocol):
    """Anything that embeds the sides of a data set, and may segment its images."""

    def describe(self) -> dict[str, Any]:
        """The facts that distinguish the model from others: ``name`` for people, and hashes."""

    def embed(self, sides: Mapping[str, Side]) -> Embeddings:
        """Embed every item that can be embedded, in order; the rows of the others are zeros."""

    def overlaps(self, data: Dataset, clicks: Sequence[int], /) -> NDArray[np.float64]:
        """The overlaps, as `fmrt.evaluation.segments.overlaps` gives them."""


@dataclasses.dataclass(frozen=True)
class BundleModel:
    """A variant of a bundle.

    Attributes:
        bundle: The opened bundle.
        variant: The name of the variant; None for the provider's own.
        provider: The execution provider that it runs on.
        options: The options of `fmrt.Embedder.embed`.
        loading: Other options of `fmrt.Embedder`.
    """

    bundle: Bundle
    variant: str | None
    provider: str
    options: EmbedOptions
    loading: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The bundle, its source and variant, and their hashes."""
        graph = self.bundle.variant(self.variant, self.provider.partition(":")[0])
        name = self.bundle.path.name
        return {
            "name": f"{name} {graph.name}",
            "bundle": str(self.bundle.path),
            "model": self.bundle.manifest.source.model,
            "variant": graph.name,
            "provider": self.provider,
            "manifest_sha256": self.bundle.manifest_sha256,
            "graph_sha256": graph.sha256,
            "options": dataclasses.asdict(self.options),
        }

    def embed(self, sides: Mapping[str, Side]) -> Embeddings:
        """Embed the sides, as `Model.embed` says.

        Raises:
            OptionError: The bundle does not give one vector per item.
        """
        check_precision(self.options)
        modalities = sorted({side.modality for side in sides.values()})
        only = modalities[0] if len(modalities) == 1 else None
        found: dict[str, Vectors] = {}
        failed: dict[str, dict[int, str]] = {}
        with (
            PeakMemory() as peak,
            Embedder(
                self.bundle,
                variant=self.variant,
                provider=self.provider,
                modality=only,
                **self.loading,
            ) as embedder,
        ):
            start = time.perf_counter()
            for name, side in sides.items():
                found[name], failed[name] = self._side(embedder, side)
            seconds = time.perf_counter() - start
        count = sum(len(side.items) for side in sides.values())
        rate = count / max(seconds, 1e-9)
        return Embeddings(
            found, failed, Cost(count, seconds, rate, self._bytes(modalities), peak.grown)
        )

    def overlaps(self, data: Dataset, clicks: Sequence[int]) -> NDArray[np.float64]:
        """The overlaps, as `Model.overlaps` says."""
        segmenter = Segmenter(self.bundle, variant=self.variant, provider=self.provider)
        return overlaps(segmenter, data, clicks)

    def _side(self, embedder: Embedder, side: Side) -> tuple[Vectors, dict[int, str]]:
        if self.bundle.manifest.tower(side.modality).grid is not None:
            raise OptionError(
                "this bundle gives a vector for each patch of an image: export it with one pooled "
                "vector to evaluate it"
            )
        failed: dict[int, str] = {}
        out: Vectors | None = None

        def reject(row: int, error: InputError) -> None:
            failed[row] = error.reason

        # All items are one group. Vectors then do not depend on the number of workers, and a run
        # can be repeated.
        stream = embedder.embed_items(
            range(len(side.items)),
            side.items.__getitem__,
            self._options(side),
            on_error=reject,
            group_of=_one_group,
        )
        for rows, vectors in stream:
            if out is None:
                out = np.zeros((len(side.items), vectors.shape[1]), np.float32)
            out[rows] = vectors
        return np.zeros((len(side.items), 0), np.float32) if out is None else out, failed

    def _options(self, side: Side) -> EmbedOptions:
        """The options for a side. The side's own prompt comes first, and only texts have one."""
        options = self.options.but({"modality": side.modality})
        plain = options.but({"prompt": None, "prompt_name": None})
        if side.modality != "text":
            return plain
        known = self.bundle.manifest.text.prompts
        own = [name for name in side.prompt_names if name in known]
        return plain.but({"prompt_name": own[0]}) if own else options

    def _bytes(self, modalities: list[str]) -> int:
        provider = self.provider.partition(":")[0]
        found = [self.bundle.variant(self.variant, provider, m) for m in modalities]
        return sum(v.size + sum(f.size for f in v.external.values()) for v in found)


@dataclasses.dataclass(frozen=True)
class OriginalModel:
    """The PyTorch model of texts that a bundle was made from.

    Attributes:
        bundle: The bundle that is compared with it.
        source: The directory or hub id of the model; None for the bundle's own source.
        options: The options of `fmrt.Embedder.embed`. Only the prompts, ``truncate_dim`` and
            ``normalize`` have an effect.
    """

    bundle: Bundle
    source: str | None
    options: EmbedOptions

    def describe(self) -> dict[str, Any]:
        """The model's name."""
        source = self.bundle.manifest.source
        return {"name": PYTORCH, "model": self.source or source.model, "revision": source.revision}

    def embed(self, sides: Mapping[str, Side]) -> Embeddings:
        """Embed the sides, as `Model.embed` says.

        Raises:
            OptionError: Some items are not texts.
        """
        from fmrt._api import original_model  # it needs torch

        if any(side.modality != "text" for side in sides.values()):
            raise OptionError(_TEXTS_ALONE)
        source = self.bundle.manifest.source
        with PeakMemory() as peak:
            name = self.source or source.model
            revision = None if self.source else source.revision
            if revision is None and not Path(name).is_dir():
                raise OptionError(
                    f"the bundle was made from the local directory {name!r}: say where it is, as "
                    "--against pytorch:DIRECTORY"
                )
            encode = original_model(name, revision, self.bundle.manifest.text.max_length)
            start = time.perf_counter()
            found = {
                name: self._finished(encode(s.items, self._prompt(s))) for name, s in sides.items()
            }
            seconds = time.perf_counter() - start
        count = sum(len(side.items) for side in sides.values())
        cost = Cost(count, seconds, count / max(seconds, 1e-9), None, peak.grown)
        return Embeddings(found, {name: {} for name in sides}, cost)

    def overlaps(self, _: Dataset, __: Sequence[int]) -> NDArray[np.float64]:
        """Refuse, as only texts are compared.

        Raises:
            OptionError: This is always raised.
        """
        raise OptionError(_TEXTS_ALONE)

    def _prompt(self, side: Side) -> str:
        text = self.bundle.manifest.text
        own = [name for name in side.prompt_names if name in text.prompts]
        if not own and self.options.prompt is not None:
            return self.options.prompt
        name = own[0] if own else self.options.prompt_name or text.default_prompt_name
        return "" if name is None else text.prompts[name]

    def _finished(self, vectors: Vectors) -> Vectors:
        vectors = vectors[:, : self.options.truncate_dim]
        normalize = self.options.normalize
        if normalize or (normalize is None and self.bundle.manifest.tower("text").normalize):
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
        return vectors


def check_precision(options: EmbedOptions) -> None:
    """Raise unless vectors of the options' precision have cosines.

    Raises:
        OptionError: They have none.
    """
    if options.precision not in _PRECISIONS:
        raise OptionError(
            f"precision={options.precision!r}; evaluate takes {', '.join(_PRECISIONS)}"
        )


def _one_group(_: int) -> int:
    return 0
