"""``fmrt tune`` chooses a provider and a variant by measurement, and refuses what is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fmrt
from fmrt.bundle.bundle import Bundle
from fmrt.cli import main
from fmrt.errors import OptionError, ProviderWarning
from fmrt.loading import Model
from fmrt.measure import choose
from fmrt.session import CPU, providers
from fmrt.session.providers.base import Provider

NOISE = 3e-3


class Fake(Provider):
    """The CPU by another name; a variant of another precision is off by a little."""

    on_host = tuned = True
    wrong = False
    missing: str | None = None
    released = "1"

    def version(self) -> str:
        return self.released

    def problem(self) -> str | None:
        return self.missing

    def open(self, path, output, device, wanted, intra_op_threads):
        session = CPU.open(path, output, device, wanted, intra_op_threads)
        real, off = session.run, NOISE * (wanted.precision != "fp32") + 0.1 * self.wrong

        def run(feeds):
            vectors = real(feeds)
            return vectors + off * np.sin(np.arange(vectors.shape[1], dtype=np.float32))

        session.run = run
        return session


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    """The only provider beside the CPU, and twice as fast by what is measured."""
    provider = Fake("fake", "FakeExecutionProvider", "pip install fake")
    monkeypatch.setitem(
        sys.modules, "fmrt.session.providers.fake", SimpleNamespace(PROVIDER=provider)
    )
    monkeypatch.setattr(providers, "PROVIDERS", ("cpu", "fake"))
    monkeypatch.setenv("FMRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fmrt.measure.calibration.TURN", 0.001)

    def compare(ways):
        return {way: run() or (1.0 if way == 0 else 2.0) for way, run in ways.items()}

    monkeypatch.setattr("fmrt.measure.candidates.compare", compare)
    return provider


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle with a CPU's variant, and one in bf16, which only the fake provider computes."""
    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, path)
    manifest = Bundle.open(path).manifest
    portable = manifest.variants[0]
    own = dataclasses.replace(portable, name="fp32-cpu", provider="cpu")
    other = dataclasses.replace(
        portable, name="bf16", provider="fake", precision="bf16", parity=None
    )
    dataclasses.replace(manifest, variants=(portable, own, other)).write(path)
    return path


def loaded(bundle: Path, **options: object) -> tuple[str, str]:
    with fmrt.Embedder(bundle, **options) as embedder:
        return embedder.provider, embedder.variant


def test_the_fastest_is_used_until_something_is_named(fake, bundle, capsys) -> None:
    own = loaded(bundle)
    assert own == ("cpu", "fp32-cpu")
    assert main(["tune", str(bundle), "--items", "8"]) == 0
    shown = capsys.readouterr().out
    assert "chosen for texts: fp32 on fake" in shown
    assert "cpu       fp32-cpu" in shown
    assert "refused: bf16 is not fp32: --quality admits it" in shown
    assert loaded(bundle) == ("fake", "fp32")
    assert Model(str(bundle), {}).provider("text") == "fake"
    assert loaded(bundle, provider="cpu") == own
    assert loaded(bundle, variant=own[1]) == own
    assert loaded(bundle, low_memory=True) == own
    assert main(["info", str(bundle)]) == 0
    assert "fp32 on fake" in capsys.readouterr().out
    assert main(["info", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]["text"]["provider"] == "fake"


def test_a_quality_admits_what_reaches_it(fake, bundle) -> None:
    opened, items = Bundle.open(bundle), ["the cat", "a dog"]
    choice, candidates = choose(opened, items, quality=0.999)
    assert (candidates[0].provider, candidates[0].speed) == ("cpu", 1.0)
    assert {c.precision for c in candidates} == {"fp32", "bf16"}
    assert all(c.refused is None for c in candidates)
    assert choice.provider == "fake"
    worst = min(c.parity.min_cosine for c in candidates if c.parity is not None)
    _, candidates = choose(opened, items, quality=(worst + 1) / 2)
    (refused,) = [c for c in candidates if c.refused]
    assert refused.precision == "bf16"
    assert "worst cosine" in str(refused.refused)
    assert refused.speed is None
    with pytest.raises(OptionError, match=r"quality=1\.5"):
        choose(opened, items, quality=1.5)


def test_what_fails_its_check_is_refused_and_said(fake, bundle, capsys) -> None:
    fake.wrong = True
    assert main(["tune", str(bundle), "--items", "8", "--quality", "0.9"]) == 0
    assert "refused: its vectors are not PyTorch's" in capsys.readouterr().out
    assert loaded(bundle)[0] == "cpu"
    fake.missing = "the package fake is missing"
    choice, candidates = choose(Bundle.open(bundle), ["the cat"])
    assert choice.provider == "cpu"
    assert candidates[-1].refused == fake.missing


def test_a_choice_that_does_not_hold_any_more_is_said(fake, bundle, capsys) -> None:
    assert main(["tune", str(bundle), "--items", "8"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loaded(bundle)[0] == "fake"
    fake.released = "2"
    with pytest.warns(ProviderWarning, match="was 1 then, and is 2 now; run fmrt tune again"):
        assert loaded(bundle)[0] == "cpu"
    capsys.readouterr()
    assert main(["info", str(bundle)]) == 0
    assert "not used" in capsys.readouterr().out


def test_a_named_variant_or_provider_leaves_no_choice(fake, bundle, capsys) -> None:
    assert main(["tune", str(bundle), "--items", "8", "--provider", "fake"]) == 0
    assert "chosen" not in capsys.readouterr().out
    assert loaded(bundle)[0] == "cpu"
    assert main(["tune", str(bundle), "--provider", "fake", "--quality", "0.9"]) == 1
    assert "name neither" in capsys.readouterr().err
