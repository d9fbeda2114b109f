"""Data sets of Hugging Face's library, on disk and on the hub, as ``fmrt evaluate`` reads them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from fmrt.errors import DataError, FmrtError
from fmrt.evaluation import Columns, Dataset, load_dataset
from fmrt.evaluation.dataset import DOCUMENTS, ITEMS, QUERIES
from fmrt.evaluation.layout import is_program
from tests.runtime.fake_hub import COMMIT, FakeHub

NAMES = ["cat", "dog"]
LABELS = [i % 2 for i in range(8)]
TEXTS = [f"{NAMES[i]} {n}" for n, i in enumerate(LABELS)]
RNG = np.random.default_rng(0)
ONE = datasets.ClassLabel(names=NAMES)


def texts(label: str = "label") -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), label: ONE})
    return datasets.Dataset.from_dict({"text": TEXTS, label: LABELS}, features=features)


def images() -> datasets.Dataset:
    pixels = [Image.fromarray(RNG.integers(0, 255, (9, 9, 3)).astype(np.uint8)) for _ in LABELS]
    features = datasets.Features({"photo": datasets.Image(), "kind": ONE})
    return datasets.Dataset.from_dict({"photo": pixels, "kind": LABELS}, features=features)


def is_whole(data: Dataset, splits: list[str] | None, items: list[object] | None = None) -> None:
    """Whether it is the texts, or others, once for each split, with the names of classes."""
    times = len(splits or [""])
    assert list(data.labels) == [NAMES[i] for i in LABELS] * times
    if items is None:
        assert list(data.sides[ITEMS].items) == TEXTS * times
    expected = None if splits is None else tuple(s for s in splits for _ in LABELS)
    assert data.split == expected


@pytest.mark.parametrize("select", [False, True])
def test_what_save_to_disk_wrote_is_read_with_its_splits_and_names(
    tmp_path: Path, select: bool
) -> None:
    own = texts().select(range(8)) if select else texts()
    datasets.DatasetDict(train=own, test=own, unsupervised=own).save_to_disk(tmp_path / "d")
    data = load_dataset(tmp_path / "d", ["text"])
    is_whole(data, ["train", "test"])
    assert any("without the splits 'unsupervised'" in line for line in data.choices)
    data = load_dataset(tmp_path / "d", ["text"], columns=Columns(split="unsupervised"))
    is_whole(data, None)
    own.save_to_disk(tmp_path / "one", num_shards=3)
    is_whole(load_dataset(tmp_path / "one", ["text"]), None)


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        # The offset of the second text: Arrow would read two GB before the first one.
        (
            "data-00000-of-00001.arrow",
            np.int32([0, 5, 10]).tobytes(),
            np.int32([0, -(2**31), 10]).tobytes(),
            "non-monotonic",
        ),
        ("dataset_info.json", b'"names": [', b'"names": 1, "x": [', "it has no label"),
        ("dataset_info.json", b'"_type": "Value"', b'"_type": ["Value"]', None),
    ],
)
def test_what_a_saved_data_set_says_of_itself_is_not_believed(
    tmp_path: Path, name: str, old: bytes, new: bytes, why: str | None
) -> None:
    texts().save_to_disk(tmp_path / "d")
    file = tmp_path / "d" / name
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    with contextlib.nullcontext() if why is None else pytest.raises(FmrtError, match=why):
        load_dataset(tmp_path / "d", ["text"])


@pytest.mark.parametrize("modalities", [["image"], ["text", "image"]])
def test_images_of_a_library_are_found_by_what_it_says_of_columns(
    tmp_path: Path, modalities: list[str]
) -> None:
    own = images()
    own.save_to_disk(tmp_path / "saved")
    own.to_parquet(tmp_path / "parquet/data/train-00000-of-00001.parquet")
    own.to_parquet(tmp_path / "one.parquet")
    for name in ("saved", "parquet", "one.parquet"):
        data = load_dataset(tmp_path / name, modalities)
        is_whole(data, None, [])
        assert data.sides[ITEMS].modality == "image"
        assert all(item.startswith(b"\x89PNG") for item in data.sides[ITEMS].items)


CARD = """---
configs:
- config_name: plain
  data_files:
  - split: train
    path: plain/tr*
  - split: test
    path: ["plain/te*.parquet"]
- config_name: other
  data_dir: more
  data_files: "**/*.jsonl"
dataset_info:
- config_name: other
  features:
  - name: text
    dtype: string
  - name: topic
    dtype:
      class_label:
        names:
          '0': cat
          '1': dog
---
# Texts
"""


def repository(root: Path) -> Path:
    """A data set with two configurations, of parquet and of lines of JSON."""
    texts().to_parquet(root / "plain/train-00000-of-00001.parquet")
    texts().to_parquet(root / "plain/test-00000-of-00001.parquet")
    (root / "more/deep").mkdir(parents=True)
    plain = datasets.Dataset.from_dict({"text": TEXTS, "topic": LABELS})
    plain.to_json(root / "more/deep/validation.jsonl")
    plain.to_json(root / "more/deep/train.jsonl")
    (root / "README.md").write_text(CARD)
    (root / ".gitattributes").write_text("*.parquet filter=lfs\n")
    return root


def test_a_downloaded_repository_is_read_as_its_card_says(tmp_path: Path) -> None:
    root = repository(tmp_path / "d")
    with pytest.raises(DataError, match="configurations 'plain', 'other'; name one with --config"):
        load_dataset(root, ["text"])
    with pytest.raises(DataError, match="no configuration 'third'"):
        load_dataset(root, ["text"], config="third")
    is_whole(load_dataset(root, ["text"], config="plain"), ["train", "test"])
    data = load_dataset(root, ["text"], config="other")
    assert set(data.split) == {"train", "test"}
    assert set(data.labels) == set(NAMES)
    (root / "README.md").unlink()
    (root / "more/deep/train.jsonl").rename(root / "more/deep/x.jsonl")
    (root / "more/deep/validation.jsonl").unlink()
    is_whole(load_dataset(root, ["text"]), ["test", "train"])


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as found:
        yield found


def evaluated(hub: FakeHub, cache: Path, code: str, **environment: str) -> str:
    """What a process prints that looks at the hub; its client reads the address once."""
    script = (
        "from fmrt.evaluation import Columns, load_dataset\n"
        "from fmrt.errors import DataError\n"
        f"try:\n    data = load_dataset({code})\n"
        "    print(len(data.labels or ()), data.split and sorted(set(data.split)), data.kind,\n"
        "          sorted(set(data.labels or ())), data.choices[0], sep='|')\n"
        "except DataError as e: print(e)\n"
    )
    kept = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    kept |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_data_set_of_the_hub_is_downloaded_as_far_as_it_is_needed(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("datasets/me/texts", repository(tmp_path / "d"))
    code = "'me/texts', ['text'], config='plain'"
    got = evaluated(hub, tmp_path, code)
    assert got == f"16|['test', 'train']|labelled|{NAMES}|me/texts: at {COMMIT} on the hub"
    assert not any("more/deep" in asked for asked in hub.asked)
    again = evaluated(hub, tmp_path, code, HF_HUB_OFFLINE="1")
    assert again.startswith("16|")
    assert "me/nothing" in (said := evaluated(hub, tmp_path, "'me/nothing', ['text']"))
    assert "no such repository" in said
    assert len(said.splitlines()) == 1
    wrong = evaluated(hub, tmp_path, "'me/texts', ['text'], data_revision='v9'")
    assert "it has no revision 'v9'" in wrong


def test_other_layouts_of_the_hub_are_downloaded_whole(hub: FakeHub, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in NAMES:
            (tmp_path / "d" / split / name).mkdir(parents=True)
            (tmp_path / "d" / split / name / "1.txt").write_text(f"{name} of {split}")
    (tmp_path / "d/README.md").write_text("# Folders\n")
    hub.add("datasets/me/folders", tmp_path / "d")
    got = evaluated(hub, tmp_path, "'me/folders', ['text']")
    assert got.startswith(f"4|['test', 'train']|labelled|{NAMES}|")


def test_a_program_is_not_run_and_its_parquet_branch_is_read(tmp_path: Path) -> None:
    assert is_program(["texts.py", "README.md", "dataset_infos.json"])
    for config in ("one", "other"):
        for split in ("train", "test"):
            texts().to_parquet(tmp_path / config / split / "0000.parquet")
    is_whole(load_dataset(tmp_path, ["text"], config="one"), ["test", "train"])
    with pytest.raises(DataError, match="the configurations 'one', 'other'"):
        load_dataset(tmp_path, ["text"])


RETRIEVAL = """---
configs:
- config_name: default
  data_files:
  - split: test
    path: qrels/test.jsonl
- config_name: corpus
  data_files:
  - split: corpus
    path: corpus.parquet
- config_name: queries
  data_files:
  - split: queries
    path: queries.jsonl
---
"""


def test_retrieval_by_configurations_is_read_as_mteb_publishes_it(tmp_path: Path) -> None:
    def rows(**columns: list[object]) -> datasets.Dataset:
        return datasets.Dataset.from_dict(columns)

    rows(_id=["a", "b"], title=["x", ""], text=["one", "two"]).to_parquet(
        tmp_path / "corpus.parquet"
    )
    rows(_id=["q"], text=["one?"]).to_json(tmp_path / "queries.jsonl")
    (tmp_path / "qrels").mkdir()
    judged = rows(**{"query-id": ["q", "q"], "corpus-id": ["a", "b"], "score": [2, 0]})
    judged.to_json(tmp_path / "qrels/test.jsonl")
    (tmp_path / "README.md").write_text(RETRIEVAL)
    data = load_dataset(tmp_path, ["text"])
    # trec_eval orders documents of one score by their ids, last first.
    assert list(data.sides[DOCUMENTS].items) == ["two", "x one"]
    assert list(data.sides[QUERIES].items) == ["one?"]
    assert data.relevant == ({0: 0.0, 1: 2.0},)
