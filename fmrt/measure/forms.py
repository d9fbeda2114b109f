"""Finds the form of a variant that is right and fastest on a GPU, and the batches that it likes."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Parity, Variant
from fmrt.embedding.engine import Engine
from fmrt.embedding.tuning import Tuning
from fmrt.errors import OptionError
from fmrt.measure.calibration import ROUNDS, best, compare, runs, that_fit
from fmrt.session import resolve_provider
from fmrt.verify import check

BUDGETS = (4_096, 8_192, 16_384, 32_768, 65_536)


@dataclasses.dataclass(frozen=True)
class TunedForm:
    """What is right and fastest of a variant on a GPU.

    Attributes:
        variant: The variant.
        device: The model of the GPU.
        tuning: The fastest of what is right; None where nothing is.
        parity: The parity of that form.
        refused: The forms that are not right there, with the reason.
        measured: The speeds relative to the first, by choice, for each of ``form`` and
            ``batch_tokens``.
    """

    variant: Variant
    device: str | None
    tuning: Tuning | None
    parity: Parity | None
    refused: Mapping[str, str]
    measured: Mapping[str, Mapping[str, float]]


def tune_forms(
    bundle: Bundle,
    variant: Variant,
    provider: str,
    items_for: Callable[[Engine], Sequence[object]],
) -> TunedForm:
    """Check each form of a variant on a GPU, and time those that are right.

    One form is loaded at a time, since each holds the weights.

    Args:
        bundle: The bundle that holds the variant.
        variant: A variant that the provider runs.
        provider: The provider, as `resolve_provider` takes it.
        items_for: A function that gives the items to measure with, for an engine that is right.

    Raises:
        OptionError: There are no items.
        VerificationError: The bundle has no reference vectors to check with.
    """
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    parities: dict[str, Parity] = {}
    items: Sequence[object] = ()
    reference = bundle.reference(variant.modality)
    for form in (variant.form or "", *variant.forms):
        try:
            with _engine(bundle, variant, provider, form) as engine:
                report = check(engine, reference)
                if not report.passed:
                    refused[form] = report.error or _said(report.parity)
                    continue
                if not items:
                    items = that_fit(engine, _some(items_for(engine)), engine.batch_tokens)
                parities[form] = report.parity
                seconds[form] = _seconds(runs(engine, items, engine.batch_tokens))
        except OptionError:
            raise
        except Exception as e:  # what a kernel that was never run may raise; the others go on
            refused[form] = str(e).strip().partition("\n")[0]
    device = resolve_provider(provider).device_model
    if not seconds:
        return TunedForm(variant, device, None, None, refused, {})
    first = next(iter(seconds.values()))
    forms = {form: first / took for form, took in seconds.items()}
    chosen = best(forms)
    with _engine(bundle, variant, provider, chosen) as engine:
        default = engine.batch_tokens
        others = [budget for budget in BUDGETS if budget != default]
        budgets = compare({b: runs(engine, items, b) for b in (default, *others)})
    measured = {"form": forms, "batch_tokens": {str(b): speed for b, speed in budgets.items()}}
    tuning = Tuning(best(budgets), form=chosen or None)
    return TunedForm(variant, device, tuning, parities[chosen], refused, measured)


@contextmanager
def _engine(bundle: Bundle, variant: Variant, provider: str, form: str) -> Iterator[Engine]:
    tuning = Tuning(form=form or None)
    engine = Engine(bundle, variant.name, provider, variant.modality, tuning=tuning)
    try:
        yield engine
    finally:
        engine.close()


def _some(items: Sequence[object]) -> Sequence[object]:
    if not items:
        raise OptionError("there is nothing to measure with; give a file with items")
    return items


def _seconds(run: Callable[[], object]) -> float:
    """The median of some turns, after one to warm up."""
    found = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def _said(parity: Parity) -> str:
    return (
        f"not PyTorch's vectors: max abs error {parity.max_abs_error:.1e}, worst cosine "
        f"{parity.min_cosine:.6f}"
    )
