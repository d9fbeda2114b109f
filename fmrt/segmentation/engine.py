"""Images and prompts to masks in the model's resolution: encoder and decoder sessions joined."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Floats
from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import ImageInput, TaskHead, Tower, Variant
from fmrt.errors import GraphError, InputError
from fmrt.preprocess import make_preprocessor
from fmrt.preprocess.frame import Frame
from fmrt.segmentation.masks import in_image
from fmrt.segmentation.prompt import UPPER_LEFT, SegmentPrompt
from fmrt.session import resolve_provider
from fmrt.session.features import FeatureSession
from fmrt.system import native
from fmrt.system.cores import available_cores
from fmrt.system.limits import DEFAULT, Budget, Limits

TASK = "segment"
MASKS, SCORES = "pred_masks", "iou_scores"
POINTS, LABELS = "input_points", "input_labels"
NEEDED = frozenset((MASKS, SCORES, POINTS, LABELS))
# Prompts of one call. Each needs the image's features times a few in memory, some 20 MB.
CALL_PROMPTS = 16

Outputs = Mapping[str, Floats]


@dataclass(frozen=True)
class EncodedImage:
    """An image as the decoder reads it; it serves any number of prompts.

    Attributes:
        features: The features by name, float32 ``[1, ...]``.
        frame: The place of the image in ``pixel_values``.
    """

    features: Mapping[str, Floats]
    frame: Frame

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.frame.size


@dataclass(frozen=True)
class Segmentation:
    """The masks of one prompt, in the model's own order: from a part of the object to all of it.

    Attributes:
        scores: The model's estimate of each mask's overlap with the object (IoU), float32 ``[n]``.
        logits: The logits of each mask in the model's resolution, above 0 on the object, float32
            ``[n, h, w]``.
        frame: The place of the image in ``pixel_values``.
    """

    scores: Floats
    logits: Floats
    frame: Frame

    @property
    def best(self) -> int:
        """Which mask has the highest score."""
        return int(self.scores.argmax())

    def mask(self, index: int | None = None) -> NDArray[np.bool_]:
        """One mask in the size of the image, bool ``[height, width]``; default the best."""
        index = self.best if index is None else index
        mask: NDArray[np.bool_] = in_image(self.logits[index][None], self.frame)[0] > 0
        return mask

    def masks(self) -> NDArray[np.bool_]:
        """All masks in the size of the image, bool ``[n, height, width]``."""
        return np.stack([self.mask(index) for index in range(len(self.scores))])


class SegmentEngine:
    """A loaded encoder and decoder of a bundle that segments.

    Args:
        bundle: The bundle with the files; each is checked against its hash.
        variant: A name, or None for the provider's own fp32 one. Of the decoder it is the one of
            this name, if there is one.
        provider: The provider: ``cpu``, ``cuda`` or ``auto``.
        threads: The number of threads inside an operator; default one per core that this process
            may use.
        decoder: The name of the decoder's variant, when it is not to follow ``variant``.
        limits: The limits of the memory that an image may take while it is decoded.

    Raises:
        BundleError: The bundle is missing or corrupt, or has no such variant.
        ProviderError: The provider cannot be had.
        OptionError: The bundle does not segment.
        MissingExtraError: Pillow is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str | None = None,
        provider: str = "cpu",
        threads: int | None = None,
        decoder: str | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        manifest = bundle.manifest
        self.head: TaskHead = manifest.head(TASK)
        lacks = NEEDED - {*self.head.inputs, *self.head.outputs}
        if lacks or self.head.modality != "image":
            names = ", ".join(sorted(lacks)) or "images"
            raise GraphError(f"the manifest's head {TASK!r} is without {names}")
        target = resolve_provider(provider)
        self.provider = target.spec
        tower: Tower = manifest.tower(self.head.modality)
        self.encoder: Variant = bundle.variant(variant, target.name, tower.modality)
        chosen = decoder or variant
        self.decoder: Variant = bundle.head_variant(self.head, chosen, target.name)
        self._preprocess = make_preprocessor(bundle, tower, limits)
        self._spec = cast("ImageInput", tower.input)
        self._budget = Budget(limits)
        head = self.head

        def opened(
            variant: Variant, inputs: Sequence[str], outputs: Sequence[str]
        ) -> FeatureSession:
            cores = threads or available_cores()
            graph = bundle.checked_graph(variant)
            return graph.use(lambda path: FeatureSession(path, target, cores, inputs, outputs))

        def start() -> tuple[FeatureSession, FeatureSession]:
            return (
                opened(self.encoder, tower.inputs, head.features),
                opened(self.decoder, (*head.features, *head.inputs), head.outputs),
            )

        self._start = start
        self._encode, self._decode = start()
        self._process = os.getpid()

    def _adapt(self) -> None:
        """Start again where the process was forked since: a fork takes no threads along."""
        if self._process == os.getpid():
            return
        native.refuse_forked_device(self.provider)
        with native.adapting():
            if self._process != os.getpid():
                self._encode, self._decode = self._start()
                self._process = os.getpid()

    def encode(self, image: object) -> EncodedImage:
        """Encode an image, as `fmrt.preprocess.image.ImagePreprocessor.load` takes it.

        Raises:
            InputError: It cannot be read.
        """
        from fmrt.preprocess.image import decoded  # Pillow is an extra

        self._adapt()
        upright = decoded(image, self._budget)
        encoded = self._preprocess.encode([self._preprocess.load(upright)], "", "error")
        features = self._encode.run(encoded.feeds(np.zeros(1, np.int64)), self.head.features)
        _check(features, (1,))
        return EncodedImage(features, Frame.of((upright.height, upright.width), self._spec))

    def outputs(self, image: EncodedImage, prompts: Sequence[SegmentPrompt]) -> dict[str, Floats]:
        """The decoder's outputs for each prompt, ``[prompts, ...]`` each.

        Raises:
            InputError: A prompt that makes no sense for this image; ``index`` is its place.
        """
        self._adapt()
        encoded = list(_encoded(prompts, image.frame))
        found: list[dict[str, Floats]] = [{} for _ in encoded]
        for rows in _calls([labels for _, labels in encoded]):
            results = self._run(image, [encoded[row] for row in rows])
            for place, row in enumerate(rows):
                found[row] = {name: value[place] for name, value in results.items()}
        return {name: np.stack([one[name] for one in found]) for name in self.head.outputs}

    def segment(self, image: EncodedImage, prompts: Sequence[SegmentPrompt]) -> list[Segmentation]:
        """The masks of each prompt.

        Raises:
            InputError: A prompt makes no sense for this image, as in `outputs`.
        """
        if not prompts:
            return []
        results = self.outputs(image, prompts)
        pairs = zip(results[SCORES], results[MASKS], strict=True)
        return [Segmentation(scores, logits, image.frame) for scores, logits in pairs]

    def _run(
        self, image: EncodedImage, prompts: Sequence[tuple[Floats, NDArray[np.int64]]]
    ) -> Outputs:
        points, labels = zip(*prompts, strict=True)
        prompt = {POINTS: np.stack(points)[None], LABELS: np.stack(labels)[None]}
        results = self._decode.run({**image.features, **prompt}, self.head.outputs)
        _check(results, (1, len(prompts)))
        return {name: value[0] for name, value in results.items()}


def _check(outputs: Outputs, sizes: tuple[int, ...]) -> None:
    """Raise unless the outputs begin with these sizes, and are numbers."""
    for name, values in outputs.items():
        if values.shape[: len(sizes)] != sizes:
            raise GraphError(
                f"the graph gives {list(values.shape)} as {name!r}, and not {list(sizes)} and more"
            )
        if not np.isfinite(values).all():
            raise InputError(f"the model gives NaN or infinity as {name} for it")


def _encoded(
    prompts: Sequence[SegmentPrompt], frame: Frame
) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
    for index, prompt in enumerate(prompts):
        try:
            points, labels = prompt.encoded(*frame.size)
        except InputError as e:
            raise InputError(e.reason, index if len(prompts) > 1 else None) from None
        yield frame.points(points), labels


def _calls(labels: Sequence[NDArray[np.int64]]) -> Iterator[list[int]]:
    """Rows of the prompts of each call: they have as many points, and all a box or none."""
    kinds: dict[tuple[int, bool], list[int]] = {}
    for row, own in enumerate(labels):
        kinds.setdefault((len(own), UPPER_LEFT in own), []).append(row)
    for rows in kinds.values():
        for start in range(0, len(rows), CALL_PROMPTS):
            yield rows[start : start + CALL_PROMPTS]
