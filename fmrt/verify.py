"""A bundle's vectors against the reference vectors that PyTorch gave at export."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmrt.arrays import Vectors
from fmrt.bundle.bundle import Bundle, HeadReference, Reference
from fmrt.bundle.manifest import NOBODY, Parity, Variant
from fmrt.embedding.engine import Engine
from fmrt.embedding.tuning import Tuning
from fmrt.errors import BundleCorruptError, BundleError, GraphError, InputError, VerificationError
from fmrt.options import checked
from fmrt.session import resolve_provider
from fmrt.system.cores import available_cores

if TYPE_CHECKING:
    from fmrt.segmentation.engine import SegmentEngine
    from fmrt.segmentation.prompt import SegmentPrompt


class Tolerance(NamedTuple):
    """How far a precision's vectors may be from PyTorch's.

    Attributes:
        max_abs_error: The largest error of a component, as a fraction of the largest reference
            component.
        min_cosine: The cosine of the worst item.
        mean_cosine: The mean cosine over all items.
    """

    max_abs_error: float
    min_cosine: float
    mean_cosine: float


# For quantized variants these say that nothing is broken; how good one is, its export measured on
# many more items, see docs/quantization.md.
TOLERANCES = {
    "fp32": Tolerance(max_abs_error=1e-4, min_cosine=0.9999, mean_cosine=0.99999),
    "fp16": Tolerance(max_abs_error=1e-2, min_cosine=0.9995, mean_cosine=0.9999),
    "int8": Tolerance(max_abs_error=0.2, min_cosine=0.97, mean_cosine=0.99),
    "int4": Tolerance(max_abs_error=0.6, min_cosine=0.8, mean_cosine=0.95),
    "bf16": Tolerance(max_abs_error=5e-2, min_cosine=0.999, mean_cosine=0.9995),
    # Graphs that other tools made: with a cheaper Gelu; with one scale for a whole batch.
    "fp32-approximate": Tolerance(max_abs_error=1e-2, min_cosine=0.9995, mean_cosine=0.9999),
    "int8-dynamic": Tolerance(max_abs_error=0.6, min_cosine=0.75, mean_cosine=0.9),
}

# Of the distance from the reference that was measured when a variant was made: how much of it a
# later check, maybe on another machine, may measure.
MARGIN = 1.5
ROUNDING = 1e-12
# The tolerance that is never narrowed, where it is not the precision's own: on another processor, a
# graph in 8 or 4 bits is rounded in another way.
LEAST = {"int4": "int8", "int8-dynamic": "int8"}

# At load, rows up to this many tokens in all are checked: enough to catch a wrong graph,
# tokenizer or pooling, and a few milliseconds of work.
QUICK_TOKENS = 96
# Items of the largest batch of a check on a GPU.
MANY = 256
# Where memory is scarce: every token brings its part of the embedding table into it.
LOW_QUICK_TOKENS = 24


@dataclass(frozen=True)
class ParityReport:
    """Outcome of one variant's check: what was measured, on which provider, over how many items.

    ``modality`` is that of a tower; of a head it is its task and the output that was compared.
    ``error`` says why a variant does not run on its provider, and then nothing was measured.
    ``form`` is the form of the variant that was checked, where there are several.
    """

    variant: str
    modality: str
    provider: str
    parity: Parity
    items: int
    passed: bool
    error: str | None = None
    form: str | None = None


def verify_bundle(
    bundle: str | Path | Bundle, variant: str | None = None, provider: str = "cpu"
) -> Iterator[ParityReport]:
    """Check one variant, or all that run on ``provider``, over every reference item.

    Among all, one made for the provider that does not run there fails, and the others go on.

    Raises:
        BundleError: A file is missing or corrupt, or there is no such variant.
        ProviderError: The provider cannot be had, or does not run ``variant`` or a portable graph.
    """
    checked(variant=variant)
    bundle = Bundle.opened(bundle)
    for name in bundle.manifest.files:
        bundle.file(name)
    name_of_provider = resolve_provider(provider).name
    fits = _fitting(bundle.manifest.variants, variant, name_of_provider)
    if variant is not None and not fits:
        bundle.variant(variant, name_of_provider)  # raises, with the names that there are
    for found in fits:
        try:
            report = _checked(bundle, found, provider)
        except BundleError as e:
            if not isinstance(e, GraphError):
                raise
            report = _failed(found, provider, e)
        except Exception as e:
            if variant is not None or found.provider == "any":
                raise
            report = _failed(found, provider, e)
        yield report
    for head in bundle.manifest.heads:
        for found in _fitting(head.variants, variant, name_of_provider):
            from fmrt.segmentation.engine import SegmentEngine

            decoder = SegmentEngine(bundle, provider=provider, decoder=found.name)
            yield from check_head(decoder, bundle)


def _checked(bundle: Bundle, variant: Variant, provider: str) -> ParityReport:
    engine = checking_engine(bundle, variant, provider)
    try:
        return check(engine, bundle.reference(variant.modality))
    finally:
        engine.close()


def _failed(variant: Variant, provider: str, error: Exception, items: int = 0) -> ParityReport:
    reason = str(error).strip().partition("\n")[0]
    nothing = Parity(float("inf"), -1.0, -1.0)
    return ParityReport(variant.name, variant.modality, provider, nothing, items, False, reason)


def checking_engine(bundle: Bundle, variant: Variant, provider: str) -> Engine:
    """An engine for `check`: one image or sound at a time, on all cores.

    A check needs no throughput, and an image of a megapixel takes gigabytes on its way.
    """
    one = Tuning(workers=1, intra_op_threads=available_cores(), query_threads=1)
    tuning = None if variant.modality == "text" else one
    return Engine(bundle, variant.name, provider, variant.modality, tuning=tuning)


def _fitting(variants: Sequence[Variant], name: str | None, provider: str) -> list[Variant]:
    return [v for v in variants if v.provider in ("any", provider) and name in (None, v.name)]


def record_parity(bundle: Bundle, reports: Iterable[ParityReport]) -> list[str]:
    """Write into the manifest what was measured of variants that passed.

    A variant made for a provider takes what was measured there; another only what it lacked.

    Returns:
        The names of the variants that took it.
    """
    from fmrt.bundle.card import renew_card

    found = {(r.variant, r.modality): r for r in reports if r.passed}
    variants, names = [], []
    for variant in bundle.manifest.variants:
        report = found.get((variant.name, variant.modality))
        on = report.provider.partition(":")[0] if report is not None else None
        if report is not None and (variant.parity is None or variant.provider == on):
            names.append(variant.name)
            measured = variant.in_form(report.form)
            variants.append(dataclasses.replace(measured, parity=report.parity, checked_on=on))
        else:
            variants.append(variant)
    manifest = dataclasses.replace(bundle.manifest, variants=tuple(variants))
    directory = bundle.in_directory()
    manifest.write(directory)
    renew_card(Bundle(directory, manifest))
    return names


def check_quick(engine: Engine, bundle: Bundle, tokens: int = QUICK_TOKENS) -> None:
    """Check a few short reference items, of so many tokens together; on a GPU all of them.

    A GPU computes them in a moment, and its kernels differ by the length and number of items.

    Raises:
        VerificationError: The vectors are not PyTorch's.
    """
    if bundle.manifest.reference == NOBODY:  # which was warned of
        return
    reference = bundle.reference(engine.tower.modality)
    if not engine.checks_batches:
        order = np.argsort(reference.lengths, kind="stable")
        rows = order[np.cumsum(reference.lengths[order]) <= tokens]
        reference = _rows(reference, rows if rows.size else order[:1])
    report = check(engine, reference, some=True)
    _refuse_failed(bundle, "vectors", [report])


def check_quick_head(engine: SegmentEngine, bundle: Bundle) -> None:
    """Check the reference prompts of one reference image, and so the image's encoder too.

    Raises:
        VerificationError: The outputs are not PyTorch's.
    """
    reference = bundle.head_reference(engine.head)
    image = reference.items[0]["image"]
    rows = [row for row, item in enumerate(reference.items) if item["image"] == image]
    outputs = {name: values[rows] for name, values in reference.outputs.items()}
    part = HeadReference([reference.items[row] for row in rows], outputs)
    _refuse_failed(bundle, "masks", check_head(engine, bundle, part))


def _refuse_failed(bundle: Bundle, what: str, reports: Sequence[ParityReport]) -> None:
    for report in reports:
        more = f"; fmrt tune {bundle.path} --provider cuda finds another" if report.form else ""
        if report.error is not None:
            raise VerificationError(
                f"{bundle.path}: variant {report.variant!r} cannot be checked: {report.error}"
            )
        if not report.passed:
            raise VerificationError(
                f"{bundle.path}: variant {report.variant!r} does not give PyTorch's {what} (max "
                f"abs error {report.parity.max_abs_error:.2g}, worst cosine "
                f"{report.parity.min_cosine:.6f}); see fmrt verify, or export the model again"
                f"{more}"
            )


def check_head(
    engine: SegmentEngine, bundle: Bundle, reference: HeadReference | None = None
) -> list[ParityReport]:
    """Compare each of a head's outputs for its reference prompts, or some, with PyTorch's.

    Raises:
        BundleCorruptError: A reference image or prompt makes no sense.
        GraphError: The outputs have another shape than PyTorch's.
    """
    reference = reference or bundle.head_reference(engine.head)
    images = bundle.reference(engine.head.modality).items
    rows: dict[int, list[int]] = {}
    for row, item in enumerate(reference.items):
        rows.setdefault(item["image"], []).append(row)
    got = {name: np.empty_like(values) for name, values in reference.outputs.items()}
    for image, own in rows.items():
        prompts = [_prompt(reference.items[row]) for row in own]
        try:
            found = engine.outputs(engine.encode(images[image]), prompts)
        except InputError as e:
            raise BundleCorruptError(f"{bundle.path}: reference item {image}: {e}") from e
        for name, values in found.items():
            wanted = (len(own), *got[name].shape[1:])
            if values.shape != wanted:
                raise GraphError(
                    f"variant {engine.decoder.name!r} gives {list(values.shape)} as {name!r}, and "
                    f"PyTorch gave {list(wanted)}"
                )
            got[name][own] = values
    return [
        _head_report(engine, name, got[name], values) for name, values in reference.outputs.items()
    ]


def _prompt(item: Mapping[str, Any]) -> SegmentPrompt:
    from fmrt.segmentation.prompt import SegmentPrompt

    return SegmentPrompt(item["points"], item["labels"], item["box"])


def _head_report(engine: SegmentEngine, name: str, got: Vectors, expected: Vectors) -> ParityReport:
    items = len(expected)
    flat = expected.reshape(items, -1)
    parity = measure(got.reshape(items, -1), flat)
    passed = passes(parity, engine.decoder, flat)
    what = f"{engine.head.task}: {name}"
    return ParityReport(engine.decoder.name, what, engine.provider, parity, items, passed)


def check(engine: Engine, reference: Reference, *, some: bool = False) -> ParityReport:
    """Compare an engine's vectors for the reference items, or some of them, with PyTorch's.

    Where kernels depend on a batch's shape, also in batches of many shapes, see `_shapes`.
    """
    try:
        vectors, expected = [reference_vectors(engine, reference)], [reference.embeddings]
        for rows in _shapes(engine, reference) if engine.checks_batches else ():
            items = [reference.items[row] for row in rows]
            vectors.append(engine.batch_vectors(items, reference.prompts[rows[0]]))
            expected.append(reference.embeddings[rows])
    except InputError as e:
        what = f"reference {e}"
        return _failed(engine.variant, engine.provider, GraphError(what), len(reference.items))
    parity = measure(np.concatenate(vectors), np.concatenate(expected))
    passed = passes(parity, engine.variant, reference.embeddings, some=some)
    return ParityReport(
        engine.variant.name,
        engine.tower.modality,
        engine.provider,
        parity,
        len(reference.items),
        passed,
        form=engine.variant.form,
    )


def _shapes(engine: Engine, reference: Reference) -> Iterator[NDArray[np.int64]]:
    """Rows that are one batch each, of shapes that a GPU has different kernels for.

    Each length alone; many of the shortest; and where items of other lengths may share a batch,
    the longest beside the shortest, many from the shorter half, and many from all.
    """
    lengths, budget = reference.lengths, engine.batch_tokens * engine.preprocess.stride
    ((prompt, _),) = Counter(reference.prompts).most_common(1)
    own = np.array([row for row, used in enumerate(reference.prompts) if used == prompt])
    order = own[np.argsort(lengths[own], kind="stable")]
    yield from (order[[place]] for place in np.unique(lengths[order], return_index=True)[1])
    pools = [order[lengths[order] == lengths[order[0]]]]
    if engine.longest_padded is None:
        yield order[[-1, 0]]
        pools += [order[: (len(order) + 1) // 2], order]
    for pool in () if engine.variant.alone else pools:
        ends = np.stack([pool[::-1], pool]).T.reshape(-1)  # by turns the longest and the shortest
        yield np.resize(ends, MANY)[: max(1, budget // max(1, int(lengths[pool].max())))]


def reference_vectors(engine: Engine, reference: Reference) -> Vectors:
    """Vectors of the reference items, each with its prompt, float32 as PyTorch's."""
    vectors = np.empty_like(reference.embeddings)
    for prompt in dict.fromkeys(reference.prompts):
        rows = [i for i, p in enumerate(reference.prompts) if p == prompt]
        vectors[rows] = engine.vectors([reference.items[i] for i in rows], prompt)
    return vectors


def measure(vectors: Vectors, expected: Vectors) -> Parity:
    """Parity of ``vectors`` with ``expected``, both float32 ``[..., dim]``; NaN fails it."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (vectors, expected))
    if not np.isfinite(a).all():
        return Parity(float("inf"), -1.0, -1.0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    # Two zero vectors are equal; a zero vector and another one are not alike at all.
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosines = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.maximum(norms, 1e-300))
    return Parity(float(np.abs(a - b).max()), float(cosines.mean()), float(cosines.min()))


def passes(parity: Parity, variant: Variant, expected: Vectors, *, some: bool = False) -> bool:
    """Whether a parity is within a variant's tolerance.

    Args:
        parity: What was measured.
        variant: The variant; its tolerance is that of its precision, unless it has its own.
        expected: The reference vectors, ``[n, dim]``.
        some: Whether these are some of all: then the mean of all is no measure of theirs, and a
            variant's own tolerance says nothing of it.

    Raises:
        BundleCorruptError: The precision is not known, or the variant's own tolerance is wider than
            any that is recorded.
    """
    if variant.precision not in TOLERANCES:
        raise BundleCorruptError(
            f"variant {variant.name!r} has precision {variant.precision!r}, which this fmrt does "
            f"not know; it knows: {', '.join(TOLERANCES)}"
        )
    if variant.tolerance is None:
        return _within(parity, _in_numbers(TOLERANCES[variant.precision], _scale(expected)))
    _check_tolerance(variant, variant.tolerance)
    own = variant.tolerance
    return _within(parity, dataclasses.replace(own, mean_cosine=-1.0) if some else own)


def tolerance_of(
    parity: Parity, precision: str, expected: Vectors, *, narrowed: bool = True
) -> Parity:
    """The tolerance of a variant of which some parity was measured over all reference items.

    It is wider than the parity, so that no check on the same machine fails, of all items or some.

    Args:
        parity: What was measured.
        precision: A key of `TOLERANCES`.
        expected: The reference vectors, float32 ``[items, dim]``.
        narrowed: Whether it may be narrower than that of the precision, see `LEAST`.
    """
    key = LEAST.get(precision, precision) if narrowed else precision
    least = _in_numbers(TOLERANCES[key], _scale(expected))
    return Parity(
        max(least.max_abs_error, MARGIN * parity.max_abs_error),
        min(least.mean_cosine, 1 - MARGIN * (1 - parity.mean_cosine)),
        min(least.min_cosine, 1 - MARGIN * (1 - parity.min_cosine)),
    )


def _within(parity: Parity, tolerance: Parity) -> bool:
    return (
        parity.max_abs_error <= tolerance.max_abs_error
        and parity.min_cosine >= tolerance.min_cosine
        and parity.mean_cosine >= tolerance.mean_cosine
    )


def _in_numbers(tolerance: Tolerance, scale: float) -> Parity:
    """A precision's tolerance, for reference vectors whose largest component is ``scale``."""
    return Parity(tolerance.max_abs_error * scale, tolerance.mean_cosine, tolerance.min_cosine)


def _scale(expected: Vectors) -> float:
    return float(np.abs(expected).max())


def _check_tolerance(variant: Variant, own: Parity) -> None:
    """Raise where a variant's own tolerance is wider than what passes when it is recorded."""
    widest = TOLERANCES[variant.precision]
    for name in ("mean_cosine", "min_cosine"):
        least = 1 - MARGIN * (1 - getattr(widest, name))
        if not getattr(own, name) >= least - ROUNDING:
            raise BundleCorruptError(
                f"variant {variant.name!r} has the tolerance {name} {getattr(own, name)}, and "
                f"{variant.precision} has {least:.6g} at least; make the variant again"
            )


def _rows(reference: Reference, rows: NDArray[np.int64]) -> Reference:
    return Reference(
        [reference.items[i] for i in rows],
        [reference.prompts[i] for i in rows],
        reference.lengths[rows],
        reference.embeddings[rows],
    )
