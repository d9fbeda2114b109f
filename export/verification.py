"""Compares each written graph with PyTorch, with the runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Manifest, Parity, TaskHead, Variant
from fmrt.embedding.tuning import save_tuning
from fmrt.errors import ExportError, ProviderError
from fmrt.export.choices import Report
from fmrt.export.loading.pretrained import first_line
from fmrt.measure.forms import tune_forms
from fmrt.measure.sample import sample_items
from fmrt.segmentation.engine import SegmentEngine
from fmrt.session import resolve_provider
from fmrt.verify import ParityReport, check, check_head, checking_engine

# Items to measure forms of attention with.
SAMPLE = 2_000


def verified(bundle: Bundle, say: Report) -> Manifest:
    """The manifest with the parity of each variant, of towers and heads.

    A fused variant that fails is left out, and the user told; the portable one must pass.

    Raises:
        ExportError: A portable graph does not give what PyTorch gives.
    """
    manifest = dataclasses.replace(bundle.manifest, variants=_towers(bundle, say))
    bundle = Bundle(bundle.path, manifest)
    heads = tuple(_head(bundle, head, say) for head in manifest.heads)
    return dataclasses.replace(manifest, heads=heads)


def _towers(bundle: Bundle, say: Report) -> tuple[Variant, ...]:
    kept: list[Variant] = []
    several = len(bundle.manifest.towers) > 1
    for variant in bundle.manifest.variants:
        of = f"{variant.name} ({variant.modality})" if several else variant.name
        target = _checked_on(variant)
        on_device = variant.provider == target and bool(variant.forms)
        found = (_measured_form if on_device else _first_form)(bundle, variant, target, of, say)
        if found is not None:
            kept.append(found)
    return tuple(kept)


def _measured_form(
    bundle: Bundle, variant: Variant, target: str, of: str, say: Report
) -> Variant | None:
    """The variant with the form that is right and fastest on this GPU; None where nothing is."""
    found = tune_forms(bundle, variant, target, lambda e: sample_items(e, bundle, SAMPLE))
    for form, why in found.refused.items():
        say(f"{of} with {form}: {why}")
    if found.tuning is None:
        _leave_out(bundle, variant, "vectors", f"{of}: no form of attention is right here", say)
        return None
    if found.device is not None:
        save_tuning(variant, found.tuning, found.measured, found.device)
    say(f"verified {of} with {found.tuning.form}, the fastest on {found.device or target}")
    chosen = variant.in_form(found.tuning.form)
    return dataclasses.replace(chosen, parity=found.parity, checked_on=target)


def _first_form(
    bundle: Bundle, variant: Variant, target: str, of: str, say: Report
) -> Variant | None:
    """The variant with its first form that passes, or that cannot be measured here."""
    for form in (variant.form, *variant.forms):
        tried = variant.in_form(form)
        passed, parity, verdict = _checked(bundle, tried, target)
        if passed:
            say(f"verified {of}: {verdict}")
            return dataclasses.replace(tried, parity=parity, checked_on=target)
        if passed is None:
            say(
                f"kept {of} unmeasured, as the CPU cannot run it; on a GPU: "
                "fmrt verify BUNDLE --provider cuda --record"
            )
            return tried
    _leave_out(bundle, variant, "vectors", f"{of}: {verdict}", say)
    return None


def _checked_on(variant: Variant) -> str:
    """The provider to check a variant on: its own, or the CPU where there is no GPU."""
    if variant.provider != "cuda":
        return "cpu"
    try:
        return resolve_provider("cuda").name
    except ProviderError:
        return "cpu"


def _checked(
    bundle: Bundle, variant: Variant, target: str
) -> tuple[bool | None, Parity | None, str]:
    """Whether a variant passes, what was measured, and both in words.

    None when ``target`` stands in for the variant's own provider and has not its operators.
    """
    try:
        free = dataclasses.replace(variant, provider="any")
        alone = Bundle(bundle.path, dataclasses.replace(bundle.manifest, variants=(free,)))
        engine = checking_engine(alone, free, target)
        try:
            result = check(engine, bundle.reference(variant.modality))
        finally:
            engine.close()
    except ProviderError as e:
        passed = False if variant.provider in ("any", target) else None
        return passed, None, first_line(e).replace(f"{bundle.path}/", "")
    except Exception as e:  # a graph that ONNX Runtime does not load, or not run
        return False, None, first_line(e).replace(f"{bundle.path}/", "")
    parity = result.parity
    words = f"max abs error {parity.max_abs_error:.1e}, worst cosine {parity.min_cosine:.6f}"
    return result.passed, parity, words


def _leave_out(bundle: Bundle, variant: Variant, what: str, verdict: str, say: Report) -> None:
    if variant.provider == "any":
        raise ExportError(f"the graph does not give PyTorch's {what} ({verdict})")
    for name in (variant.file, *variant.external):
        (bundle.path / name).unlink()
    say(f"left out {verdict}: not PyTorch's {what}")


def _head(bundle: Bundle, head: TaskHead, say: Report) -> TaskHead:
    kept: list[Variant] = []
    for variant in head.variants:
        reports = check_head(SegmentEngine(bundle, decoder=variant.name), bundle)
        verdict = f"{variant.name} ({head.task}): " + "; ".join(map(_said, reports))
        if all(report.passed for report in reports):
            kept.append(dataclasses.replace(variant, parity=_worst(reports)))
            say(f"verified {verdict}")
        else:
            _leave_out(bundle, variant, "outputs", verdict, say)
    return dataclasses.replace(head, variants=tuple(kept))


def _said(report: ParityReport) -> str:
    output = report.modality.rsplit(maxsplit=1)[-1]
    return f"{output} max abs error {report.parity.max_abs_error:.1e}"


def _worst(reports: Sequence[ParityReport]) -> Parity:
    """The worst of each figure over a head's outputs."""
    found = [report.parity for report in reports]
    return Parity(
        max(parity.max_abs_error for parity in found),
        min(parity.mean_cosine for parity in found),
        min(parity.min_cosine for parity in found),
    )
