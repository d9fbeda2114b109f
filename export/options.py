"""How a model is exported: each option declared once, for the API and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fmrt.errors import OptionError, quoted
from fmrt.export.choices import PATCH, POOLED, Overrides
from fmrt.export.quantize import MIN_COSINE, check_quality, named_schemes
from fmrt.export.trace import NAMES, OPSETS
from fmrt.options import checked, file_path, number

Adapters = str | Path | Sequence[tuple[str | Path, float]]
OUTPUTS = (POOLED, PATCH)
# What may come from NumPy, and is Python's own after its check.
_FLAGS_AND_NUMBERS = (
    "normalize",
    "max_length",
    "opset",
    "cuda",
    "trust_remote_code",
    "overwrite",
)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `export_model`.

    Attributes:
        output: The output: ``pooled`` for one vector per item, or ``patch`` for one vector per
            patch of an image.
        pooling: The pooling of texts ``cls``, ``max``, ``mean``, ``mean_sqrt_len_tokens``,
            ``weightedmean`` or ``lasttoken``, or several joined with ``+``; of images ``cls``,
            ``mean`` or ``pooler``; default as the model says.
        normalize: Whether to end in L2 normalization; default as the model says.
        max_length: The largest number of tokens of a text, special tokens included, or seconds of a
            sound; default as the model says.
        adapter: A PEFT adapter's directory or hub id to merge into the weights, or several with
            the weight of each: the changes add up.
        opset: The ONNX opset version; default the converter's own.
        exporter: The exporter: ``transformers`` for transformers' own, of transformers 5, or
            ``optimum`` for optimum-onnx, with transformers 4; default the one that is installed.
        revision: The branch, tag or commit of a hub model.
        device: The torch device of the conversion, e.g. ``cuda``.
        quantize: The schemes of quantized variants to add, as for `quantize_bundle`; the bundle is
            at ``out`` before, and each is added as soon as it has passed.
        min_cosine: The least mean cosine, as for `quantize_bundle`.
        calibration: The calibration items, as for `quantize_bundle`.
        cuda: Whether to add variants in fp32, fp16 and bf16 for GPUs. They are checked on a GPU
            where there is one, and otherwise on the CPU as far as it can run them.
        trust_remote_code: Whether Python files of the model's directory may run, with your rights,
            where the model's type or modules are not a library's own. Read them first.
        overwrite: Whether ``out`` may replace a bundle.

    Raises:
        OptionError: An option has a wrong type or makes no sense; it is named and quoted.
    """

    output: str = POOLED
    pooling: str | None = None
    normalize: bool | None = None
    max_length: int | None = None
    adapter: Adapters = ()
    opset: int | None = None
    exporter: str | None = None
    revision: str | None = None
    device: str = "cpu"
    quantize: str | Sequence[str] = ()
    min_cosine: float = MIN_COSINE
    calibration: str | Path | None = None
    cuda: bool = False
    trust_remote_code: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        checked(output=self.output, pooling=self.pooling)
        checked(revision=self.revision, device=self.device, exporter=self.exporter)
        values = checked(
            normalize=self.normalize,
            max_length=self.max_length,
            opset=self.opset,
            cuda=self.cuda,
            trust_remote_code=self.trust_remote_code,
            overwrite=self.overwrite,
        )
        for name, value in zip(_FLAGS_AND_NUMBERS, values, strict=True):
            object.__setattr__(self, name, value)
        check_quality(self.min_cosine, self.calibration)
        _ = self.schemes, self.adapters
        if self.opset is not None and self.opset not in OPSETS:
            raise OptionError(
                f"opset {self.opset}; choose from {OPSETS.start} to {OPSETS.stop - 1}"
            )
        if self.exporter not in (None, *NAMES):
            raise OptionError(f"exporter {quoted(self.exporter)}; choose from: {', '.join(NAMES)}")
        if self.output not in OUTPUTS:
            raise OptionError(f"output {self.output!r}; choose from: {', '.join(OUTPUTS)}")

    @cached_property
    def schemes(self) -> list[str]:
        """Names of the schemes to add."""
        return named_schemes(self.quantize) if self.quantize else []

    @cached_property
    def adapters(self) -> list[tuple[str, float]]:
        """Each adapter with its weight."""
        return _weighted(self.adapter)

    @property
    def overrides(self) -> Overrides:
        """What is asked for instead of what the model says."""
        return Overrides(
            pooling=self.pooling,
            normalize=self.normalize,
            max_length=self.max_length,
            output=self.output,
            trust_remote_code=self.trust_remote_code,
        )


def _weighted(given: Adapters) -> list[tuple[str, float]]:
    """Each adapter with its weight.

    Raises:
        OptionError: The value is not a list of weights.
    """
    pairs = [(given, 1.0)] if isinstance(given, str | Path) else given
    try:
        return [(str(file_path("adapter", a)), number("weight", weight)) for a, weight in pairs]
    except (TypeError, ValueError) as e:
        if isinstance(e, OptionError):
            raise
        raise OptionError(
            f"adapter={quoted(given)}; give a directory or hub id, or a list of (adapter, weight)"
        ) from None
