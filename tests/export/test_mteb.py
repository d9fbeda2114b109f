"""Bundles under the package ``mteb``, on local tasks: its figures are the source model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import pytest
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

import fmrt
from fmrt.errors import OptionError
from fmrt.evaluation.mteb import MtebEncoder
from tests.export.models import TINY, save_tiny
from tests.export.test_towers import save as save_towers

WORDS = ("cat mat red sat", "dog ran blue fast", "road long two far")
RNG = np.random.default_rng(0)


def sentence(kind: int) -> str:
    return " ".join(RNG.choice(WORDS[kind].split(), 6)) + " and the"


def metadata(name: str, kind: str, score: str, modalities: tuple[str, ...] = ("text",)) -> Any:
    return TaskMetadata(
        name=name,
        type=kind,
        main_score=score,
        description="Of local data.",
        dataset={"path": "local", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=list(modalities),
        prompt={"query": "Find what belongs to it"},
    )


LABELS = [i % 3 for i in range(30)]


class Classes(AbsTaskClassification):
    metadata = metadata("LocalClasses", "Classification", "accuracy")
    n_experiments = 2

    def load_data(self, **_: Any) -> None:
        rows = {"text": [sentence(i) for i in LABELS], "label": LABELS}
        own = datasets.Dataset.from_dict(rows)
        self.dataset = datasets.DatasetDict(train=own, test=own)
        self.data_loaded = True


class Pairs(AbsTaskSTS):
    metadata = metadata("LocalPairs", "STS", "cosine_spearman")
    min_score, max_score = 0, 2

    def load_data(self, **_: Any) -> None:
        rows = {
            "sentence1": [sentence(i) for i in LABELS],
            "sentence2": [sentence(i % 2) for i in LABELS],
            "score": LABELS,
        }
        self.dataset = datasets.DatasetDict(test=datasets.Dataset.from_dict(rows))
        self.data_loaded = True


class Search(AbsTaskRetrieval):
    metadata = metadata("LocalSearch", "Retrieval", "ndcg_at_10")

    def load_data(self, **_: Any) -> None:
        documents = [{"id": f"d{i}", "title": "a", "text": sentence(i % 3)} for i in range(30)]
        queries = [{"id": f"q{i}", "text": sentence(i)} for i in range(3)]
        split = {
            "corpus": datasets.Dataset.from_list(documents),
            "queries": datasets.Dataset.from_list(queries),
            "relevant_docs": {f"q{i}": {f"d{j}": 1 for j in range(i, 30, 3)} for i in range(3)},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def images() -> list[Any]:
    from PIL import Image

    return [Image.fromarray(RNG.integers(0, 255, (20, 20, 3)).astype(np.uint8)) for _ in LABELS]


class Pictures(AbsTaskClassification):
    metadata = metadata("LocalPictures", "ImageClassification", "accuracy", ("image",))
    n_experiments, input_column_name = 2, "image"

    def load_data(self, **_: Any) -> None:
        own = datasets.Dataset.from_dict({"image": images(), "label": LABELS})
        self.dataset = datasets.DatasetDict(train=own, test=own)
        self.data_loaded = True


class Named(AbsTaskZeroShotClassification):
    metadata = metadata("LocalNamed", "ZeroShotClassification", "accuracy", ("image", "text"))

    def load_data(self, **_: Any) -> None:
        own = datasets.Dataset.from_dict({"image": images(), "label": LABELS})
        self.dataset = datasets.DatasetDict(test=own)
        self.data_loaded = True

    def get_candidate_labels(self) -> list[str]:
        return ["a photo of a cat", "a photo of a dog", "a photo of a road"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text model with prompts for both sides, and its bundle."""
    root = tmp_path_factory.mktemp("mteb")
    plain, model = save_tiny(TINY[0], root / "plain"), root / "model"
    prompts = {"query": "red query: ", "document": "blue: ", "STS": "long two: "}
    SentenceTransformer(str(plain), prompts=prompts, device="cpu").save(str(model))
    fmrt.export_model(model, root / "bundle")
    return model


def scores(encoder: Any, task: Any) -> float:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    found = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
    return float(found.task_results[0].scores["test"][0]["main_score"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", [Classes, Pairs, Search])
def test_texts_score_as_in_sentence_transformers(model: Path, task: Any) -> None:
    want = scores(SentenceTransformer(str(model), device="cpu"), task())
    encoder = MtebEncoder(model.parent / "bundle")
    assert scores(encoder, task()) == pytest.approx(want, abs=1e-6)
    assert abs(want) < 1 or task is Classes
    assert encoder.mteb_model_meta.name == "fmrt/bundle-fmrt-fp32-cpu"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_images_are_embedded_and_compared_with_texts(tmp_path: Path) -> None:
    bundle = fmrt.export_model(save_towers("clip", tmp_path / "model"), tmp_path / "bundle")
    encoder = MtebEncoder(bundle)
    for task in (Pictures(), Named()):
        assert 0 <= scores(encoder, task) <= 1


def test_a_prompt_is_chosen_by_task_then_type_then_side(model: Path) -> None:
    bundle, search = model.parent / "bundle", Search.metadata
    with fmrt.Embedder(bundle) as embedder:

        def prompted(prompt: str) -> np.ndarray:
            return embedder.embed(["cat"], prompt=prompt)

        def got(side: PromptType | None, task: Any = search, **options: Any) -> np.ndarray:
            encoder = MtebEncoder(bundle, **options)
            given = {"task_metadata": task, "hf_split": "test", "hf_subset": "default"}
            return encoder.encode([{"text": ["cat"]}], prompt_type=side, **given)

        query, document = PromptType.query, PromptType.document
        assert np.allclose(got(query), prompted("red query: "))
        assert np.allclose(got(document), prompted("blue: "))
        assert np.allclose(got(None, Pairs.metadata), prompted("long two: "))
        prompts = {"Retrieval-query": "by type ", "LocalSearch-document": "by task "}
        assert np.allclose(got(query, prompts=prompts), prompted("by type "))
        assert np.allclose(got(document, prompts=prompts), prompted("by task "))
        asked = got(None, Classes.metadata, instruction="do {instruction}: ")
        assert np.allclose(asked, prompted("do Find what belongs to it: "))
        assert np.allclose(got(document, instruction="do {instruction}: "), prompted("blue: "))


def test_what_it_cannot_embed_is_one_line(model: Path) -> None:
    bundle = model.parent / "bundle"
    given = {"task_metadata": Search.metadata, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(OptionError, match="'LocalSearch' gives text and image in one item"):
        MtebEncoder(bundle).encode([{"text": ["a"], "image": [b""]}], **given)
    with pytest.raises(OptionError, match=r"has no \{instruction\}"):
        MtebEncoder(bundle, instruction="Find: ")
