"""``docs/models.md`` says what the tests and the conformance run found."""

from __future__ import annotations

import transformers

from tests.conformance.docs import DOCS, render
from tests.conformance.results import read_results
from tests.conformance.scope import model_types


def test_the_page_of_models_is_not_stale() -> None:
    assert DOCS.read_text() == render(read_results()), "run python -m tests.conformance --docs"


def test_every_model_type_has_an_outcome() -> None:
    results = read_results()
    if results.transformers == transformers.__version__:
        assert sorted(results.outcomes) == model_types(), "run python -m tests.conformance"
