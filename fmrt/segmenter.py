"""The public API of segmentation: a `Segmenter` turns points and boxes on an image into masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Manifest
from fmrt.errors import ProcessError
from fmrt.options import checked
from fmrt.segmentation.engine import EncodedImage, Segmentation, SegmentEngine
from fmrt.segmentation.prompt import SegmentPrompt
from fmrt.system.limits import DEFAULT, Limits
from fmrt.verify import check_quick_head


class Segmenter:
    """Segments images with a bundle of a Segment Anything model, on onnxruntime alone.

    Safe to call from several threads. On the CPU it works in a forked process too, which opens the
    sessions again at its first call. It cannot be pickled.

    Args:
        bundle: The directory that ``fmrt export`` wrote, or the ``owner/name`` of one on the
            Hugging Face hub, of which only the files of the chosen variant are downloaded.
        variant: A name that ``fmrt info`` lists; default the provider's own fp32 graph.
        provider: Execution provider: ``cpu``, ``cuda``, or ``auto`` for the best one there is.
        threads: Inside an operator; default one a core this process may use.
        verify: Check one of the bundle's reference images at load, and refuse the bundle when its
            masks and scores are not PyTorch's.
        max_item_bytes: Most memory to take for an image while it is decoded; a larger one is an
            error, unless its file has a thirty-second of that. Default 200 MB.
        sha256: The SHA-256 of the bundle's manifest, as ``fmrt info`` prints it; another
            bundle is refused.
        revision: Branch, tag or commit of a bundle on the hub.

    Raises:
        OptionError: A bundle that does not segment.
        BundleError: Not a bundle, corrupt, from a newer fmrt, or with wrong masks.
        ProviderError: The provider is unknown or cannot be had.

    Example:
        >>> segmenter = Segmenter("bundle/")  # doctest: +SKIP
        >>> image = segmenter.encode("photo.jpg")  # doctest: +SKIP
        >>> mask = segmenter.segment(image, points=[(320, 240)]).mask()  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        variant: str | None = None,
        provider: str = "cpu",
        threads: int | None = None,
        verify: bool = True,
        max_item_bytes: int = DEFAULT.item_bytes,
        sha256: str | None = None,
        revision: str | None = None,
    ) -> None:
        checked(variant=variant, provider=provider)
        threads, verify, item_bytes = checked(
            threads=threads, verify=verify, max_item_bytes=max_item_bytes
        )
        self._bundle = Bundle.opened(bundle, sha256, revision)
        self._engine = SegmentEngine(
            self._bundle, variant, provider, threads, limits=Limits(item_bytes)
        )
        if verify:
            check_quick_head(self._engine, self._bundle)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        revision: str | None = None,
        variant: str | None = None,
        provider: str = "cpu",
        sha256: str | None = None,
        **options: Any,
    ) -> Segmenter:
        """Load a bundle from a local directory or the Hugging Face hub, as the constructor does.

        Raises:
            BundleNotFoundError: No such directory, and the hub does not give such a bundle.
        """
        return cls(
            model,
            revision=revision,
            variant=variant,
            provider=provider,
            sha256=sha256,
            **options,
        )

    def encode(self, image: object) -> EncodedImage:
        """Encode an image once, for any number of prompts. This takes most of the time.

        Args:
            image: A path, a file's bytes, a ``PIL.Image.Image``, or uint8 ``[height, width, 3]``.

        Raises:
            InputError: It cannot be read.
        """
        return self._engine.encode(image)

    def segment(
        self,
        image: object,
        *,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: tuple[float, float, float, float] | None = None,
    ) -> Segmentation:
        """Segment one object.

        Args:
            image: An `EncodedImage`, or what `encode` takes.
            points: ``(x, y)`` in pixels of the image, from its upper left corner.
            labels: The label of each point, 1 on the object or 0 off it; default all 1.
            box: ``(x0, y0, x1, y1)`` around the object, the upper left corner first.

        Raises:
            InputError: Neither point nor box, one outside of the image, or malformed; an image
                that cannot be read.
        """
        return self.segment_prompts(image, [SegmentPrompt(points, labels, box)])[0]

    def segment_prompts(
        self, image: object, prompts: Sequence[SegmentPrompt]
    ) -> list[Segmentation]:
        """Segment an object a prompt, many at a time; arguments and errors are as `segment`'s."""
        encoded = image if isinstance(image, EncodedImage) else self.encode(image)
        return self._engine.segment(encoded, prompts)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def variant(self) -> str:
        """Name of the encoder's variant that is loaded."""
        return self._engine.encoder.name

    @property
    def provider(self) -> str:
        """Execution provider that the sessions run on."""
        return self._engine.provider

    def __reduce__(self) -> NoReturn:
        raise ProcessError(
            f"a Segmenter cannot be pickled or copied, as its sessions belong to this process: "
            f"make one in each process by Segmenter({str(self._bundle.path)!r}), for instance in "
            "the initializer of a Pool"
        )

    def __repr__(self) -> str:
        return f"Segmenter({str(self._bundle.path)!r}, {self.manifest.model_type})"
