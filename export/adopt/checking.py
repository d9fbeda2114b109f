"""Measures adopted graphs: against a reference, and what a batch does to a text's vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmrt.arrays import Vectors
from fmrt.bundle.bundle import Bundle, Reference
from fmrt.bundle.manifest import NOBODY, OWN_GRAPH, Variant
from fmrt.errors import ExportError, said
from fmrt.export.choices import Report
from fmrt.export.text.reference import SENTENCES, reference_texts, token_counter
from fmrt.export.text.source import TextSource
from fmrt.verify import check, checking_engine, passes, tolerance_of

FP32 = "fp32"
# Of the largest component: what batch mates may change by rounding alone.
UNCHANGED = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}
# What a graph is called that keeps no tolerance of its own precision, but that of a looser one.
LOOSER = {"fp32": ("fp32-approximate",), "int8": ("int8-dynamic",)}
# Texts of one length each, so that a batch of them has no padding.
WORDS = ("cat", "river", "seven", "green", "house", "never", "music", "stone")


@dataclass(frozen=True)
class Probe:
    """Items that tell what a batch does to a vector.

    Attributes:
        modality: The modality of their tower.
        alike: Items of one length.
        unlike: Items of several lengths; there may be none.
    """

    modality: str
    alike: Sequence[Any]
    unlike: Sequence[Any] = ()


TEXTS = Probe("text", WORDS, SENTENCES)


def own_reference(bundle: Bundle, source: TextSource) -> Reference:
    """Reference texts with the vectors that the bundle's fp32 graph gives them, each alone.

    Raises:
        ExportError: There is no such graph, or ONNX Runtime does not run it.
    """
    fp32 = next((v for v in bundle.manifest.variants if v.precision == FP32), None)
    if fp32 is None:
        raise ExportError("there is no fp32 graph, whose vectors --record-reference would record")
    count, length = token_counter(source.model.tokenizer), source.max_length
    items = reference_texts(count, length, source.model.prompts.values())
    engine = checking_engine(bundle, fp32, "cpu")
    try:
        rows = [engine.vectors([text], prompt)[0] for text, prompt in items]
    finally:
        engine.close()
    return Reference(
        items=[text for text, _ in items],
        prompts=[prompt for _, prompt in items],
        lengths=np.array([min(count(prompt + text), length) for text, prompt in items]),
        embeddings=np.stack(rows),
    )


@dataclass(frozen=True)
class Checker:
    """Checks the variants of a bundle that is being written.

    Attributes:
        bundle: The bundle.
        model: The model whose vectors are the reference, for messages.
        say: A function that takes lines for the user.
        probe: The items that tell what a batch does.
    """

    bundle: Bundle
    model: str
    say: Report
    probe: Probe

    def kept(self) -> tuple[Variant, ...]:
        """The variants that passed, with what was measured; the first must pass.

        Raises:
            ExportError: The first does not run, or does not give the reference's vectors.
        """
        kept: list[Variant] = []
        for variant in self.bundle.manifest.variants:
            try:
                kept.append(self._measured(variant))
            except ExportError as e:
                if not kept:
                    raise
                self.say(f"left out {e}")
                self._remove(variant)
        return tuple(kept)

    def _measured(self, variant: Variant) -> Variant:
        free = dataclasses.replace(variant, provider="any")
        alone = dataclasses.replace(self.bundle.manifest, variants=(free,))
        bundle = Bundle(self.bundle.path, alone)
        try:
            found = self._by_batch(bundle, self._compared(bundle, free))
        except ExportError:
            raise
        except Exception as e:  # a graph that ONNX Runtime does not load, or not run
            why = said(e).replace(f"{self.bundle.path}/", "")
            raise ExportError(f"{variant.name}: the CPU does not run it: {why}") from e
        return dataclasses.replace(found, provider=variant.provider)

    def _compared(self, bundle: Bundle, variant: Variant) -> Variant:
        """The variant with its parity, in the precision whose tolerance it keeps.

        Raises:
            ExportError: The variant keeps the tolerance of no precision.
        """
        if bundle.manifest.reference == NOBODY:
            return variant
        reference = bundle.reference(self.probe.modality)
        engine = checking_engine(bundle, variant, "cpu")
        try:
            report = check(engine, reference)
        finally:
            engine.close()
        if report.error is not None:
            raise ExportError(f"{variant.name}: {report.error}")
        parity = report.parity
        words = f"max abs error {parity.max_abs_error:.1e}, worst cosine {parity.min_cosine:.6f}"
        of = self._of(variant)
        first = variant.name == self.bundle.manifest.variants[0].name
        precisions = [variant.precision]
        if not (first and variant.name == FP32):  # of an optimized graph alone, no more is known
            precisions += LOOSER.get(variant.precision, ())
        for precision in precisions:
            taken = dataclasses.replace(variant, precision=precision)
            if passes(parity, taken, reference.embeddings):
                self.say(f"verified {of} as {precision}: {words}")
                tolerance = tolerance_of(parity, precision, reference.embeddings)
                return dataclasses.replace(
                    taken, parity=parity, checked_on="cpu", tolerance=tolerance
                )
        raise ExportError(
            f"{of}: the graph does not give the vectors of {self._whose} ({words}): it "
            "was made from other weights or with another pooling, or is too coarse"
        )

    @property
    def _whose(self) -> str:
        own = self.bundle.manifest.reference == OWN_GRAPH
        return "its fp32 graph" if own else self.model

    def _of(self, variant: Variant) -> str:
        """A variant's name, with its tower where there are several."""
        several = len(self.bundle.manifest.towers) > 1
        return f"{variant.name} ({variant.modality})" if several else variant.name

    @property
    def _item(self) -> str:
        return {"audio": "sound"}.get(self.probe.modality, self.probe.modality)

    def _by_batch(self, bundle: Bundle, variant: Variant) -> Variant:
        """The variant, with what its texts may share a batch with."""
        bound = UNCHANGED.get(variant.precision, UNCHANGED[FP32])
        moved = _moved(bundle, variant, self.probe.alike)
        if moved > bound:
            self.say(
                f"  {variant.name}: a {self._item}'s vector depends on the others of its batch, by "
                f"up to {moved:.1e} of its largest component: each will be a batch of its own"
            )
            return dataclasses.replace(variant, alone=True)
        padded = _moved(bundle, variant, self.probe.unlike)
        if padded > bound:
            self.say(
                f"  {variant.name}: padding changes a {self._item}'s vector, by up to {padded:.1e} "
                "of its largest component: batches will be of one length"
            )
            return dataclasses.replace(variant, padded=False)
        return variant

    def _remove(self, variant: Variant) -> None:
        for name in (variant.file, *variant.external):
            (self.bundle.path / name).unlink(missing_ok=True)


def _moved(bundle: Bundle, variant: Variant, items: Sequence[Any]) -> float:
    """How far a batch moves the vectors of its items, as a part of the largest component."""
    if not items:
        return 0.0
    engine = checking_engine(bundle, variant, "cpu")
    try:
        together: Vectors = engine.vectors(items)
        alone = np.concatenate([engine.vectors([item]) for item in items])
    finally:
        engine.close()
    return float(np.abs(together - alone).max() / max(float(np.abs(alone).max()), 1e-30))
