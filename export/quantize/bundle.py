"""Adds quantized variants to a bundle, each verified, and each complete or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.card import renew_card
from fmrt.bundle.checked import place_inside
from fmrt.bundle.manifest import Manifest, Parity, Quality, Tower, Variant
from fmrt.embedding.engine import Engine
from fmrt.errors import ExportError, FmrtError, OptionError, ProviderError, QuantizationError, said
from fmrt.export.choices import Report
from fmrt.export.graph_file import add_form, unwritten, write_graph
from fmrt.export.quantize.context import Context, Made, Score
from fmrt.export.quantize.copying import own_copy
from fmrt.export.quantize.goal import LADDER, TRIAL, Goal, Judge, lost, with_evaluation
from fmrt.export.quantize.items import Items, given_items, own_items
from fmrt.export.quantize.refusal import why_refused
from fmrt.export.quantize.scheme import SCHEMES, Form, named_schemes
from fmrt.export.quantize.steps import padding_moves
from fmrt.export.writing.external import KEY, external_files
from fmrt.options import checked, file_path
from fmrt.system.cores import cpu_name
from fmrt.system.whole_file import write_whole
from fmrt.verify import check, measure, tolerance_of

MIN_COSINE = 0.999
WORK = ".quantize-"
# Speed is the median ratio over this many rounds that take turns.
ROUNDS = 5
# Vectors are the same when no component differs by more, as a part of the largest or of 1.
SAME = 1e-6


def check_quality(min_cosine: float, calibration: str | Path | None) -> None:
    """Raise unless variants can be judged so.

    Raises:
        OptionError: A cosine that is none, or nothing to calibrate on.
    """
    checked(min_cosine=min_cosine, calibration=calibration)
    if not 0 < min_cosine < 1:
        raise OptionError(f"min_cosine={min_cosine!r}; give a number between 0 and 1")
    if calibration is not None and not Path(calibration).exists():
        raise OptionError(
            f"calibration {str(calibration)!r} is not there; give a text a line, or a folder of "
            "images or sounds"
        )


def quantize_bundle(
    bundle: str | Path,
    schemes: str | Sequence[str],
    *,
    min_cosine: float = MIN_COSINE,
    calibration: str | Path | None = None,
    out: str | Path | None = None,
    revision: str | None = None,
    sha256: str | None = None,
    judge: Judge | None = None,
    report: Report | None = None,
) -> Bundle:
    """Add variants to a bundle, each as soon as it has passed; torch is not needed.

    Args:
        bundle: The directory of the bundle, or its hub id.
        schemes: The names of schemes, as for `named_schemes`; a variant that is there already is
            replaced.
        min_cosine: The mean cosine with the fp32 vectors that each variant must reach on held-out
            calibration items.
        calibration: The user's items: a file with one text per line, or a folder of images or
            sounds; default the exporter's own. A bundle with two towers takes texts.
        out: A new directory for the bundle with its new variants, the given one staying as it is;
            default the given one, and of a bundle on the hub the repository's name.
        revision: The branch, tag or commit of a bundle on the hub.
        sha256: The SHA-256 of the bundle's manifest, as ``fmrt info`` prints it; another bundle is
            refused.
        judge: A function that compares a variant with fp32 on a data set. A variant that does not
            keep a measure is made again with less quantized, and refused in the end. ``min_cosine``
            then does not count.
        report: A function that takes lines that say what is being done.

    Returns:
        The bundle with every variant that was asked for.

    Raises:
        QuantizationError: A variant that does not reach ``min_cosine``, or is not PyTorch's; it
            names those that were added nevertheless.
        OptionError: An argument that makes no sense.
        BundleError: The bundle is missing or corrupt.
        ExportError: The bundle cannot be written, or has nothing to start from.
    """
    names = named_schemes(schemes)
    file_path("bundle", bundle)
    checked(report=report, judge=judge)
    check_quality(min_cosine, calibration)
    say = report or (lambda _: None)
    path = own_copy(Bundle.open(bundle, sha256, revision), out, say)
    _remove_leftovers(path)
    towers = Bundle.open(path).manifest.towers
    given = None if calibration is None else Path(calibration)
    items = {tower.modality: _items(tower.modality, given, say) for tower in towers}
    goal = Goal((min_cosine,) if judge is None else LADDER, judge)
    with np.errstate(all="ignore"):  # weights that overflow give a variant that is refused
        _add_all(path, [form for name in names for form in SCHEMES[name]], items, goal, say)
    return Bundle.open(path)


def _add_all(
    path: Path, forms: Sequence[Form], items: Mapping[str, Items], goal: Goal, say: Report
) -> None:
    """Add each form that is good enough.

    Raises:
        QuantizationError: One form or several are not good enough.
        ExportError: The bundle cannot be written.
    """
    added: list[str] = []
    refused: dict[str, str] = {}
    for form in forms:
        try:
            _add(path, form, items, goal, say)
            added.append(form.variant)
        except ExportError as e:
            refused[form.variant] = str(e)
            say(f"refused {form.variant}: {e}")
        except OSError as e:
            why = f"cannot write {path}: {e.strerror or e}; {_there(added)}"
            raise ExportError(why) from e
    if refused:
        why = f"{'; '.join(refused.values())}; {_there(added)}"
        raise QuantizationError(why, path, added, refused)


def _there(added: Sequence[str]) -> str:
    return f"added: {', '.join(added)}" if added else "nothing is added"


def _add(path: Path, form: Form, items: Mapping[str, Items], goal: Goal, say: Report) -> None:
    """Add one form of every tower to the bundle, and only then report it.

    Raises:
        ExportError: The form is not good enough; the bundle is as it was.
    """
    bundle = Bundle.open(path)
    work = path / f"{WORK}{os.getpid()}"
    try:
        made = _good_enough(bundle, form, items, goal, work, say)
        _put_in_place(bundle, made, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    renew_card(Bundle.open(path))
    for variant in made:
        say(_summary(variant))


def _good_enough(
    bundle: Bundle, form: Form, items: Mapping[str, Items], goal: Goal, work: Path, say: Report
) -> list[Variant]:
    """The variants of all towers that reach the goal, in ``work``.

    Raises:
        ExportError: No variants reach the goal.
    """
    why = ""
    graphs: list[str] = []
    for cosine in goal.cosines:
        shutil.rmtree(work, ignore_errors=True)
        (work / "onnx").mkdir(parents=True)
        made = [
            _of_tower(bundle, tower, form, items[tower.modality], cosine, work, say)
            for tower in bundle.manifest.towers
        ]
        if goal.judge is None:
            return made
        if graphs == [v.sha256 for v in made]:
            continue  # as good as the ones before
        graphs = [v.sha256 for v in made]
        trial, provider = _all_trial(bundle, form, made, work)
        base = _base(bundle, form, trial.manifest.modalities[0]).name
        found = goal.judge(trial, TRIAL, base, provider)
        why = lost(found)
        if not why:
            say(f"  keeps the {len(found.measures)} measures of fp32 on {found.data}")
            return [with_evaluation(v, found) for v in made]
        say(f"  made for a mean cosine of {cosine}, it loses on {found.data}: {why}")
    raise ExportError(f"{form.variant} does not keep what fp32 reaches: {why}")


def _all_trial(
    bundle: Bundle, form: Form, made: Sequence[Variant], work: Path
) -> tuple[Bundle, str]:
    """The bundle with the variants of all towers that were made, and the provider to run it on."""
    if form.make is not None:
        for variant in made:
            bundle = _trial(bundle, variant, work)
        return bundle, "cpu"
    moved = (dataclasses.replace(v, name=TRIAL) for v in made)
    variants = (*bundle.manifest.variants, *moved)
    manifest = dataclasses.replace(bundle.manifest, variants=variants)
    return Bundle(bundle.path, manifest), form.provider


def _of_tower(
    bundle: Bundle,
    tower: Tower,
    form: Form,
    items: Items,
    target: float,
    work: Path,
    say: Report,
) -> Variant:
    base = _base(bundle, form, tower.modality)
    say(f"quantizing {base.name} of {tower.modality}s to {form.variant}")
    try:
        graph = ir.load(str(bundle.graph(base)))
        return _variant(Context(bundle, tower, graph, items, target, say), form, work)
    except (FmrtError, OSError, MemoryError):
        raise
    except Exception as e:  # whatever a graph of an unknown origin provokes in the passes
        why = f"{form.variant} cannot be made of {base.file}: {said(e)}"
        raise ExportError(why) from e


def _items(modality: str, given: Path | None, say: Report) -> Items:
    # A folder is of images or sounds, a file of texts.
    if given is not None and (modality == "text") != given.is_dir():
        say(f"calibrating on {given}")
        return given_items(given, modality)
    return own_items(modality)


def _base(bundle: Bundle, form: Form, modality: str) -> Variant:
    fp32 = [v for v in bundle.manifest.variants if (v.modality, v.precision) == (modality, "fp32")]
    for provider in (form.base, "any"):
        for variant in fp32:
            if variant.provider == provider:
                return variant
    raise ExportError(f"{bundle.path} has no fp32 variant of {modality}s to start from")


def _stem(bundle: Bundle, modality: str) -> str:
    """The stem of a tower's file names: the portable graph's."""
    variants = bundle.manifest.variants
    stems = [Path(v.file).stem for v in variants if (v.modality, v.provider) == (modality, "any")]
    if not stems:
        raise ExportError(f"{bundle.path} has no portable variant of {modality}s")
    return stems[0]


def _variant(context: Context, form: Form, work: Path) -> Variant:
    """A variant made, measured, and written to ``work``."""
    if form.make is None:
        return _of_the_same_graph(context, form)
    return _measured_variant(context, form, form.make(context), work)


def _of_the_same_graph(context: Context, form: Form) -> Variant:
    """The base's graph in a precision of the form's provider, measured there."""
    bundle, modality = context.bundle, context.tower.modality
    base = _base(bundle, form, modality)
    blank = dataclasses.replace(
        base, name=form.variant, provider=form.provider, precision=form.precision
    )
    blank = dataclasses.replace(blank, parity=None, checked_on=None, quality=None, tolerance=None)
    variants = (*bundle.manifest.variants, blank)
    variants = (*(v for v in variants if v == blank or v.name != blank.name),)
    trial = Bundle(bundle.path, dataclasses.replace(bundle.manifest, variants=variants))
    try:
        speed, parity, score = _beside_fp32(context, form, trial)
    except ProviderError as e:
        raise ExportError(f"{form.variant} is computed by {form.provider}: {e}") from e
    if score.mean < context.target:
        raise ExportError(_below(form, score, context.target))
    items = len(context.items.held_out)
    quality = Quality(items, score.mean, score.worst, 0, 0, speed, cpu_name())
    return _recorded(context, blank, parity, form.provider, quality)


def _recorded(
    context: Context, variant: Variant, parity: Parity, provider: str, quality: Quality
) -> Variant:
    """The variant with what was measured, and a tolerance for machines that round otherwise."""
    expected = context.bundle.reference(context.tower.modality).embeddings
    tolerance = tolerance_of(parity, variant.precision, expected, narrowed=False)
    return dataclasses.replace(
        variant, parity=parity, checked_on=provider, quality=quality, tolerance=tolerance
    )


def _below(form: Form, score: Score, target: float) -> str:
    return f"{form.variant} reaches a mean cosine of {score.mean:.6f}, below {target}"


def _beside_fp32(context: Context, form: Form, trial: Bundle) -> tuple[float, Parity, Score]:
    """Speed as a multiple of the CPU's fp32 variant, parity with PyTorch, and cosines with fp32.

    Raises:
        ExportError: The vectors are not PyTorch's.
        ProviderError: The provider cannot be had.
    """
    modality, items = context.tower.modality, context.items.held_out
    engines = [
        Engine(trial, form.variant, form.provider, modality),
        Engine(trial, modality=modality),
    ]
    try:
        report = check(engines[0], trial.reference(modality))
        if not report.passed:
            worst = report.parity.min_cosine
            raise ExportError(f"{form.variant} fails: worst cosine with PyTorch {worst:.6f}")
        found = measure(*(engine.vectors(items) for engine in engines))
        ratios = []
        for _ in range(ROUNDS):
            seconds = [_seconds(engine, items) for engine in engines]
            ratios.append(seconds[1] / seconds[0])
        score = Score(found.mean_cosine, found.min_cosine)
        return statistics.median(ratios), report.parity, score
    finally:
        for engine in engines:
            engine.close()


def _measured_variant(context: Context, form: Form, made: Made, work: Path) -> Variant:
    modality = context.tower.modality
    blank = unwritten(
        form.variant,
        _stem(context.bundle, modality),
        form.suffix,
        form.provider,
        modality,
        form.precision,
    )
    blank = dataclasses.replace(blank, form=made.form)
    written = write_graph(made.model, work, blank, mapped=form.mapped or bool(made.forms))
    for name, graph in made.forms.items():
        written = add_form(graph, work, written, name)
    score = context.score(made.model)
    if score.mean < context.target:
        raise ExportError(_below(form, score, context.target))
    own_provider = form.provider in ("any", "cpu")
    trial = _trial(context.bundle, written, work)
    if form.rounds and (padding_moves(context, made.model) or _padding_matters(context, trial)):
        written = dataclasses.replace(written, padded=False)
        trial = _trial(context.bundle, written, work)
        context.say("  padding changes its vectors: batches will be of one length")
    speed, parity = _measured(context, form, made.model, trial)
    quality = Quality(
        items=len(context.items.held_out),
        mean_cosine=score.mean,
        min_cosine=score.worst,
        kept=made.kept,
        products=made.products,
        speed=speed if own_provider else None,
        cpu=cpu_name(),
    )
    return _recorded(context, written, parity, "cpu", quality)


def _summary(variant: Variant) -> str:
    quality = variant.quality
    if quality is None:
        name = variant.name
        return f"made {name} again, unmeasured; on a GPU: fmrt verify --provider cuda --record"
    kept = f", {quality.kept} of {quality.products} products kept" if quality.kept else ""
    speed = f", {quality.speed:.2f} times the speed of fp32" if quality.speed else ""
    return (
        f"verified {variant.name}: mean cosine {quality.mean_cosine:.6f}, worst "
        f"{quality.min_cosine:.6f}{kept}{speed}"
    )


def _trial(bundle: Bundle, variant: Variant, work: Path) -> Bundle:
    """The bundle as it would be, the variant still in ``work`` and allowed on the CPU."""
    inside = work.relative_to(bundle.path).as_posix()
    moved = dataclasses.replace(
        variant,
        name=TRIAL,
        provider="any",
        file=f"{inside}/{variant.file}",
        external={f"{inside}/{name}": record for name, record in variant.external.items()},
        forms={},
    )
    manifest = bundle.manifest
    variants = (*manifest.variants, moved)
    return Bundle(bundle.path, dataclasses.replace(manifest, variants=variants))


def _padding_matters(context: Context, trial: Bundle) -> bool:
    """Whether vectors of held-out items depend on the padding that batch mates bring."""
    engine = Engine(trial, TRIAL, modality=context.tower.modality)
    try:
        items = context.items.held_out
        together = engine.vectors(items)
        alone = np.concatenate([engine.vectors([item]) for item in items])
    finally:
        engine.close()
    return bool(np.abs(together - alone).max() > SAME * max(1.0, float(np.abs(alone).max())))


def _measured(context: Context, form: Form, model: ir.Model, trial: Bundle) -> tuple[float, Parity]:
    """Speed as a multiple of the CPU's fp32 variant, and parity with PyTorch.

    Raises:
        ExportError: The vectors are not PyTorch's.
    """
    modality = context.tower.modality
    engines = [Engine(trial, name, modality=modality) for name in (None, TRIAL)]
    try:
        reference = trial.reference(modality)
        report = check(engines[1], reference)
        if not report.passed:
            why = why_refused(context, model, engines[1], reference)
            raise ExportError(f"{form.variant} fails: {why}")
        ratios = []
        for _ in range(ROUNDS + 1):
            seconds = [_seconds(engine, context.items.held_out) for engine in engines]
            ratios.append(seconds[0] / seconds[1])
        return statistics.median(ratios[1:]), report.parity
    finally:
        for engine in engines:
            engine.close()


def _seconds(engine: Engine, items: Sequence[object]) -> float:
    start = time.perf_counter()
    engine.vectors(items)
    return time.perf_counter() - start


def _put_in_place(bundle: Bundle, made: Sequence[Variant], work: Path) -> None:
    """Move the graphs in, and list them last.

    What is replaced leaves the manifest first, so that at no time it lists a file that has changed.
    """
    replaced = {(v.name, v.modality) for v in made}
    manifest = bundle.manifest
    rest = tuple(v for v in manifest.variants if (v.name, v.modality) not in replaced)
    if len(rest) < len(manifest.variants):
        dataclasses.replace(manifest, variants=rest).write(bundle.path)
    for variant in made:
        for name in (*variant.external, variant.file):
            if not (work / name).exists():
                continue  # a graph that is there already, computed in another precision
            place = place_inside(bundle.path, name, folder=True)
            place.parent.mkdir(exist_ok=True)
            (work / name).replace(place)
    _list_external(bundle.path, made)
    _listed(manifest, rest, made).write(bundle.path)


def _listed(manifest: Manifest, rest: Sequence[Variant], made: Sequence[Variant]) -> Manifest:
    return dataclasses.replace(manifest, variants=(*rest, *made))


def _list_external(directory: Path, made: Sequence[Variant]) -> None:
    """Tell transformers.js which graphs have their weights in a second file."""
    external = external_files(made)
    path = directory / "config.json"
    if not external or not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    section = config.setdefault("transformers.js_config", {})
    section.setdefault(KEY, {}).update(external)
    write_whole(path, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())


def _remove_leftovers(directory: Path) -> None:
    """Remove what a killed run left behind."""
    for folder in directory.glob(f"{WORK}*"):
        if not _alive(folder.name.removeprefix(WORK)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True  # another user's, or not ours to judge
    return True
